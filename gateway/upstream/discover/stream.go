package discover

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"
)

const (
	// maxLine bounds one line of a stream: Kubernetes stores no object above 1.5 MiB.
	maxLine = 4 << 20
	// gather is how long after a change more of them are awaited: a deployment changes many things at once.
	gather = 100 * time.Millisecond
	// steadyAfter is how long a stream must last for the next to be opened without a growing pause: a server that ends every
	// stream at once is not asked all the time.
	steadyAfter = 10 * time.Second
)

// stream is an answer that comes line by line for as long as somebody reads it.
type stream struct {
	lines chan []byte
	err   error // once lines is closed; nil: the server has ended it in order
	stop  func()
}

// stream begins one; who begins one runs it.
func (a *api) stream(ctx context.Context, path string, q url.Values) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	reply, err := a.get(ctx, path, q)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &stream{lines: make(chan []byte)}
	s.stop = func() {
		cancel()
		for range s.lines { // until the reader has ended
		}
	}
	go func() {
		defer close(s.lines)
		defer reply.Body.Close()
		in := bufio.NewScanner(reply.Body)
		in.Buffer(nil, maxLine)
		for in.Scan() {
			if len(in.Bytes()) == 0 {
				continue
			}
			select {
			case s.lines <- slices.Clone(in.Bytes()):
			case <-ctx.Done():
				return
			}
		}
		if err := in.Err(); err != nil {
			s.err = fmt.Errorf("the stream of %s broke: %w", a.who, err)
		}
	}()
	return s, nil
}

// reader is who follows a stream.
type reader struct {
	take   func(line []byte) (changed bool, err error) // of each line
	settle func() error                                // a while after a change
	every  time.Duration                               // how often round is called in any case; 0: never
	round  func() error
	steady func() // once the stream has lasted
}

// run follows the stream until it ends, or the reader does not want it any more.
func (s *stream) run(ctx context.Context, r reader) error {
	defer s.stop()
	steady := time.NewTimer(steadyAfter)
	defer steady.Stop()
	var rounds <-chan time.Time
	if r.every > 0 {
		t := time.NewTicker(r.every)
		defer t.Stop()
		rounds = t.C
	}
	var soon <-chan time.Time
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case line, more := <-s.lines:
			if !more {
				return s.ended(soon != nil, r)
			}
			var changed bool
			if changed, err = r.take(line); changed && soon == nil {
				soon = time.After(gather)
			}
		case <-soon:
			soon, err = nil, r.settle()
		case <-rounds:
			err = r.round()
		case <-steady.C:
			r.steady()
		}
		if err != nil {
			return err
		}
	}
}

// ended tells what the stream has said to its end.
func (s *stream) ended(changed bool, r reader) error {
	if s.err == nil && changed {
		return r.settle()
	}
	return s.err
}
