package compile

import (
	"errors"
	"fmt"

	"headgate/config/decode"
	"headgate/gateway/upstream"
)

// unit is what was compiled together and is closed together, when the last snapshot that holds it has drained.
type unit struct {
	uses  int // by snapshots; guarded by Compiler.mu
	close []func() error
}

// hold adds a unit to what the snapshot holds.
func (j *job) hold(u *unit) {
	j.compiler.mu.Lock()
	u.uses++
	j.compiler.mu.Unlock()
	j.held = append(j.held, u)
}

// take holds a unit of the current snapshot, unless that has been closed in the meantime.
func (j *job) take(u *unit) bool {
	j.compiler.mu.Lock()
	alive := u.uses > 0
	if alive {
		u.uses++
	}
	j.compiler.mu.Unlock()
	if alive {
		j.held = append(j.held, u)
	}
	return alive
}

// release gives units back and closes those that nobody holds any more, the last one first.
func (c *Compiler) release(units []*unit) error {
	c.mu.Lock()
	var over []*unit
	for _, u := range units {
		if u.uses--; u.uses == 0 {
			over = append(over, u)
		}
	}
	c.mu.Unlock()
	var errs []error
	for i := len(over) - 1; i >= 0; i-- {
		for k := len(over[i].close) - 1; k >= 0; k-- {
			errs = append(errs, over[i].close[k]())
		}
	}
	return errors.Join(errs...)
}

// service is an upstream as a unit.
type service struct {
	unit
	upstream *upstream.Upstream
	hash     decode.Hash
}

// upstreams takes over what did not change and makes the rest.
func (j *job) upstreams() {
	for _, name := range j.loaded.Objects("upstreams") {
		m, ok := j.loaded.Document.Upstreams[name]
		if !ok {
			continue
		}
		if m.Split != nil { // which has no targets; see releases
			continue
		}
		hash := j.loaded.Hash("upstreams", name)
		before := j.compiler.liveUpstream(name)
		if before != nil && before.hash == hash && j.take(&before.unit) {
			j.next.upstreams[name] = before
			continue
		}
		j.count.Upstreams++
		env := j.compiler.options.Upstream
		env.Log = env.Log.With("upstream", name)
		if f := m.Fallback; f != nil && f.Respond != nil {
			env.Respond = j.respond(f.Respond, []string{"upstreams", name, "fallback", "respond"})
		}
		if err := checkHost(m.Host); err != nil {
			j.problem("invalid_value", err.Error(), "upstreams", name, "host")
		}
		u, err := upstream.New(name, m, env)
		if err != nil {
			j.locate(err, "upstreams", name)
			continue
		}
		if before != nil {
			u.Inherit(before.upstream)
		}
		s := &service{upstream: u, hash: hash}
		s.close = append(s.close, func() error { return j.compiler.closeUpstream(u) })
		j.hold(&s.unit)
		j.next.upstreams[name] = s
	}
}

func (c *Compiler) liveUpstream(name string) *service {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live.upstreams[name]
}

// closeUpstream closes an upstream. Its metrics go with it, also when another one of that name has taken its place, so
// that one shows its own again.
func (c *Compiler) closeUpstream(u *upstream.Upstream) error {
	err := u.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.live.upstreams[u.Name]; s != nil && s.upstream != u && s.uses > 0 {
		s.upstream.Start()
	}
	return err
}

// checkHost checks what an upstream is told as Host.
func checkHost(host string) error {
	switch host {
	case "pass", "target":
		return nil
	}
	if host == "" || !validAuthority(host) {
		return fmt.Errorf("%q is not a host; write pass, target, or a name with an optional port", host)
	}
	return nil
}

// locate adds the problems of an error whose parts may point below a path.
func (j *job) locate(err error, path ...string) {
	for _, e := range decode.Flatten(err) {
		at := path
		var p *decode.PathError
		if errors.As(e, &p) {
			at = append(path[:len(path):len(path)], p.Path...)
		}
		j.problem("invalid_value", e.Error(), at...)
	}
}
