package bodylimit

import (
	"io"

	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

// limit is the policy at work.
type limit struct {
	max    int64
	detail string
}

// announced refuses a body whose length is known before any of it is read, and before 100 (Continue) asks for it.
func (l *limit) announced(x *exchange.Exchange) policy.Verdict {
	if x.Request.Body.Length > l.max {
		return policy.Refuse(x, exchange.BodyTooLarge, l.detail)
	}
	return policy.Continue
}

// streamed counts a body whose length is not known ahead. The wire holds every other body to its Content-Length.
func (l *limit) streamed(x *exchange.Exchange, r io.Reader) io.Reader {
	if x.Request.Body.Length >= 0 {
		return r
	}
	c := counted{limit: l, from: r, left: l.max}
	if pieces, ok := r.(exchange.Piecewise); ok {
		return &countedPieces{c, pieces}
	}
	return &c
}

// counted ends with an error when more than the limit has crossed it.
type counted struct {
	*limit
	from io.Reader
	left int64
}

// Read implements io.Reader.
func (c *counted) Read(b []byte) (int, error) {
	n, err := c.from.Read(b)
	return c.count(n, err)
}

// count returns how many of n bytes are within the limit.
func (c *counted) count(n int, err error) (int, error) {
	within := int64(n)
	if c.left < within {
		within, err = c.left, &exchange.Error{Code: exchange.BodyTooLarge, Source: exchange.FromClient, Detail: c.detail}
	}
	c.left -= within
	return int(within), err
}

// countedPieces hands pieces on without a copy.
type countedPieces struct {
	counted
	pieces exchange.Piecewise
}

// Next implements exchange.Piecewise.
func (c *countedPieces) Next() ([]byte, error) {
	piece, err := c.pieces.Next()
	n, err := c.count(len(piece), err)
	return piece[:n], err
}
