package client

import (
	"io"

	"headgate/gateway/exchange"
	"headgate/internal/sock"
)

// ofMessages reports whether a body of the type is a stream of messages that need not follow upon each other at once. Towards a
// target that speaks HTTP/2 a request that is silent holds no connection up; over HTTP/1.1 it would have one for itself, and the
// limits of listeners stay.
func ofMessages(media string) bool {
	for _, stem := range [...]string{"application/grpc", "application/connect+"} {
		if len(media) >= len(stem) && exchange.EqualFold(media[:len(stem)], stem) {
			return true
		}
	}
	return false
}

// piecesOf returns a function that returns the next piece of a body, without a copy if the reader can do that. Else the buffer is
// what it reads into; a body that is silent should not hold one for nothing.
func piecesOf(r io.Reader) (next func() ([]byte, error), buf *[]byte) {
	if p, ok := r.(exchange.Piecewise); ok {
		return p.Next, nil
	}
	buf = sock.Get()
	return func() ([]byte, error) {
		n, err := r.Read(*buf)
		return (*buf)[:n], err
	}, buf
}
