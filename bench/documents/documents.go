// Package documents holds the documents that Headgate is measured with: templates, because ports and numbers of routes vary.
package documents

import "embed"

// Files are the documents by name.
//
//go:embed *.yaml
var Files embed.FS
