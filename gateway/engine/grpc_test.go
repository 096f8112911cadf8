package engine

import (
	"context"
	"io"
	"strings"
	"testing"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/grpc"
	"headgate/gateway/policy"
	"headgate/internal/clock"
)

// silent is a client's side whose body does not come.
type silent struct {
	wire
	interrupt chan struct{}
}

func (s *silent) Interrupt() { close(s.interrupt) }

func (s *silent) Read([]byte) (int, error) {
	<-s.interrupt
	return 0, io.ErrUnexpectedEOF
}

// Whatever an exchange waits for inside of the gateway, its deadline ends it, and the client is told so.
func TestADeadlineEndsWhateverIsWaitedFor(t *testing.T) {
	for name, hooks := range map[string]func(*policy.Hooks){
		"the request's body": func(k *policy.Hooks) { k.BufferLimit = 1024 },
		"a policy": func(k *policy.Hooks) {
			k.Request = policy.Step{Later: func(ctx context.Context, _ *exchange.Exchange) policy.Verdict {
				<-ctx.Done()
				return policy.Fail(ctx.Err())
			}}
		},
	} {
		for _, contentType := range []string{"application/grpc", "application/grpc-web-text"} {
			t.Run(name+", "+contentType, func(t *testing.T) {
				h := newHouse(t)
				slow := []*policy.Instance{h.policy("slow", policy.Limit, hooks)}
				s := h.serve(rule{path: "/shop.Orders/List", policies: slow, answer: fixed(200, "")})
				s.Routes[0].GRPC = grpc.NewSettings(model.GRPC{Web: "translate"}, clock.System{})
				x, _ := request("POST /shop.Orders/List", "content-type: "+contentType, "grpc-timeout: 20m")
				w := &silent{interrupt: make(chan struct{})}
				x.Wire, x.Request.Body = w, exchange.Body{Reader: w, Length: -1}
				h.entrance.Serve(x)
				x.Cancel.Rest()
				if w.status != 200 || !strings.Contains(w.header, "grpc-status: 4\r\n") ||
					!strings.Contains(w.header, "headgate-code: deadline_exceeded\r\n") {
					t.Errorf("%d\n%s", w.status, w.header)
				}
				if code, ok := x.Usage.GRPC.Code(); !ok || code != 4 || x.Err == nil || x.Err.Code.Name != "deadline_exceeded" {
					t.Errorf("recorded as %d, %v", code, x.Err)
				}
			})
		}
	}
}

// An exchange that is no call may have a deadline, too: what a route will be given for all its exchanges.
func TestADeadlineOfAnOrdinaryExchangeIsAProblem(t *testing.T) {
	h := newHouse(t)
	h.serve(rule{path: "/orders", answer: fixed(200, ""), policies: []*policy.Instance{h.policy("a", policy.Admit, func(k *policy.Hooks) {
		k.Request.Now = func(x *exchange.Exchange) policy.Verdict {
			x.Cancel.Expire(x.Start, x.Start)
			return policy.Continue
		}
	})}})
	x, w := h.ask("GET /orders")
	if w.status != 504 || x.Err.Code.Name != "deadline_exceeded" || !strings.Contains(w.body, "deadline_exceeded") {
		t.Errorf("%d %s", w.status, w.body)
	}
}

func TestACallThatIsNotValidHTTPIsRefusedAsACall(t *testing.T) {
	h := newHouse(t)
	h.serve(rule{path: "/orders", answer: fixed(200, "")})
	x, w := request("POST /shop.Orders/List", "content-type: application/grpc")
	x.Err = &exchange.Error{Code: exchange.HeadTooLarge, Source: exchange.FromClient}
	h.entrance.Refuse(x)
	if w.status != 200 || !strings.Contains(w.header, "grpc-status: 8\r\n") || w.body != "" {
		t.Errorf("%d %q\n%s", w.status, w.body, w.header)
	}
}
