// Package examples holds the documents beside it.
package examples

import _ "embed"

//go:embed shop.yaml
var shop string

// Shop returns the document of the demo shop.
func Shop() string { return shop }
