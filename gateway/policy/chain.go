package policy

import (
	"io"
	"slices"

	"headgate/gateway/exchange"
	"headgate/internal/size"
)

// Chain is every policy of one route, in the order in which they run. It is immutable and serves all its requests at once.
type Chain struct {
	instances    []*Instance
	strip        []*Instance
	request      []*Instance
	response     []*Instance // in reverse: the last policy of the request sees the reply first
	requestBody  []*Instance // in order
	responseBody []*Instance // in reverse
	done         []*Instance
	bufferLimit  size.Bytes
}

// NewChain orders the instances by stage, keeping their order inside one, and leaves nil hooks out.
func NewChain(instances []*Instance) *Chain {
	c := &Chain{instances: slices.Clone(instances)}
	slices.SortStableFunc(c.instances, func(a, b *Instance) int { return int(a.Stage) - int(b.Stage) })
	for _, i := range c.instances {
		h := &i.Hooks
		c.strip = appendIf(c.strip, i, h.Strip != nil && !i.Shadow)
		c.request = appendIf(c.request, i, h.Request.Now != nil || h.Request.Later != nil)
		c.requestBody = appendIf(c.requestBody, i, h.RequestBody != nil && !i.Shadow)
		c.done = appendIf(c.done, i, h.Done != nil)
		if !i.Shadow { // which must not be why a body is too large
			c.bufferLimit = smallestPositive(c.bufferLimit, h.BufferLimit)
		}
	}
	for _, i := range slices.Backward(c.instances) {
		h := &i.Hooks
		c.response = appendIf(c.response, i, (h.Response.Now != nil || h.Response.Later != nil) && !i.Shadow)
		c.responseBody = appendIf(c.responseBody, i, h.ResponseBody != nil && !i.Shadow)
	}
	return c
}

func appendIf(list []*Instance, i *Instance, wanted bool) []*Instance {
	if wanted {
		return append(list, i)
	}
	return list
}

// smallestPositive returns the stricter of two limits, where 0 is none.
func smallestPositive(a, b size.Bytes) size.Bytes {
	if a == 0 || (b > 0 && b < a) {
		return b
	}
	return a
}

// Instances returns the policies in the order in which they see a request.
func (c *Chain) Instances() []*Instance { return c.instances }

// BufferLimit returns up to how many bytes of the request's body must be held before Request; 0: it streams.
func (c *Chain) BufferLimit() size.Bytes { return c.bufferLimit }

// Request runs the request steps in order. It returns false when x.Reply has been filled instead.
func (c *Chain) Request(x *exchange.Exchange) bool {
	c.stripAll(x)
	for _, i := range c.request {
		if i.Shadow {
			i.rehearse(x)
			continue
		}
		if i.applies(x) && !i.settle(x, i.Hooks.Request.run(x)) {
			return false
		}
	}
	return true
}

func (c *Chain) stripAll(x *exchange.Exchange) {
	for _, i := range c.strip {
		i.Hooks.Strip(x)
	}
}

// Response runs the response steps, last policy first, on the reply that the client will get.
func (c *Chain) Response(x *exchange.Exchange) {
	for _, i := range c.response {
		if i.applies(x) {
			i.settle(x, i.Hooks.Response.run(x))
		}
	}
}

// RequestBody wraps the request's body for the upstream. Without body hooks it returns the body as it is.
func (c *Chain) RequestBody(x *exchange.Exchange, body io.Reader) io.Reader {
	for _, i := range c.requestBody {
		if i.applies(x) {
			body = i.Hooks.RequestBody(x, body)
		}
	}
	return body
}

// ResponseBody wraps the reply's body for the client. Without body hooks it returns the body as it is.
func (c *Chain) ResponseBody(x *exchange.Exchange, body io.Reader) io.Reader {
	for _, i := range c.responseBody {
		if i.applies(x) {
			body = i.Hooks.ResponseBody(x, body)
		}
	}
	return body
}

// Done runs every Done hook, also when one of them panics.
func (c *Chain) Done(x *exchange.Exchange) {
	for n, i := range c.done {
		if !i.finish(x) {
			(&Chain{done: c.done[n+1:]}).Done(x)
			return
		}
	}
}

// Close closes every policy once the last exchange of the chain has ended.
func (c *Chain) Close() error {
	var first error
	for _, i := range c.instances {
		if i.Hooks.Close == nil {
			continue
		}
		if err := i.Hooks.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
