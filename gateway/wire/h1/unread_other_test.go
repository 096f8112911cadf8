//go:build !linux

package h1

import "syscall"

// unread is not known here: pieces may arrive together.
func unread(syscall.RawConn) int { return 0 }
