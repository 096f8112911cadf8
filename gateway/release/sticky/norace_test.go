//go:build !race

package sticky

const raced = false
