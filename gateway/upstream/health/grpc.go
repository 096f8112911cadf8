package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/upstream/pool"
	"headgate/gateway/wire/h2/client"
)

// grpc asks grpc.health.v1.Health/Check (github.com/grpc/grpc/blob/master/doc/health-checking.md). Its two messages are
// so small that they are written and read here by hand.
type grpc struct {
	to      *pool.Pool
	terms   client.Terms
	plan    client.Plan
	request []byte
}

const (
	// MaxServiceName bounds a name so that its length fits in two bytes of a varint.
	MaxServiceName = 4 << 10
	// maxHealthReply is more than any answer to a check has.
	maxHealthReply = 1 << 10
	// serving is HealthCheckResponse.ServingStatus SERVING.
	serving = 1
)

// servingStatus are the names of the other ones.
var servingStatus = map[uint64]string{0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

func newGRPC(service string, patience time.Duration, to *pool.Pool) *grpc {
	g := &grpc{to: to, terms: to.Terms()}
	if plan := to.StreamPlan(); plan != nil {
		g.plan = *plan
	}
	g.terms.Streams, g.terms.Ping = 1, 0
	g.plan.Response, g.plan.Idle = patience, patience
	g.request = healthRequest(service)
	return g
}

// healthRequest is a message with its prefix: not compressed, its length, and field 1, a string.
func healthRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service)))
		message = append(message, service...)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

func (g *grpc) close() {}

func (g *grpc) ask(ctx context.Context) error {
	conn, err := g.to.Open(ctx, nil)
	if err != nil {
		return err
	}
	if g.to.TLS() != nil && conn.ALPN != pool.ALPNH2 {
		return errors.Join(&unwell{probeGRPC, "the target did not agree on HTTP/2, which gRPC needs"}, conn.Close())
	}
	c, err := client.Open(ctx, conn.Conn, &g.terms, lone{})
	if err != nil {
		return err
	}
	defer c.Wait()
	defer c.Retire()
	x := &exchange.Exchange{Cancel: new(exchange.Canceler), Wire: nobody{}}
	stop := context.AfterFunc(ctx, x.Cancel.Cancel)
	defer stop()
	x.Request = exchange.Request{Method: "POST", Path: "/grpc.health.v1.Health/Check"}
	x.Request.Header.Add("content-type", "application/grpc")
	x.Request.Header.Add("user-agent", "headgate-probe")
	x.Request.Body = exchange.Body{Reader: bytes.NewReader(g.request), Length: int64(len(g.request))}
	if !c.Reserve() {
		return &unwell{probeGRPC, "the target takes no streams"}
	}
	call := client.NewCall(&g.plan)
	defer call.Close()
	call.Prepare(x)
	if err := call.Do(x, c); err != nil {
		return err
	}
	return healthy(&x.Reply)
}

// healthy reads the answer to a check.
func healthy(r *exchange.Reply) error {
	if r.Status != 200 {
		return notServing("the check was answered %d", r.Status)
	}
	var message []byte
	if r.Body.Reader != nil {
		var err error
		if message, err = io.ReadAll(io.LimitReader(r.Body.Reader, maxHealthReply+1)); err != nil {
			return err
		}
	}
	status, told := r.Trailer.Lookup("grpc-status")
	if !told {
		status, told = r.Header.Lookup("grpc-status")
	}
	switch {
	case len(message) > maxHealthReply:
		return notServing("the answer to the check has more than %d bytes", maxHealthReply)
	case !told:
		return notServing("the answer to the check is not gRPC's: it has no grpc-status")
	case status != "0":
		why := r.Trailer.Get("grpc-message") + r.Header.Get("grpc-message") // in one of them
		return notServing("the check failed with grpc-status %s %q", status, why)
	}
	return servingOf(message)
}

var errHealthReply = notServing("the answer to the check is not a HealthCheckResponse")

func notServing(format string, args ...any) error {
	return &unwell{probeGRPC, fmt.Sprintf(format, args...)}
}

// servingOf reads a message with its prefix, in which field 1 is an enumeration; without it, it is UNKNOWN.
func servingOf(b []byte) error {
	if len(b) < 5 || b[0] != 0 || int(binary.BigEndian.Uint32(b[1:])) != len(b)-5 {
		return errHealthReply
	}
	status := uint64(0)
	for b = b[5:]; len(b) > 0; {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return errHealthReply
		}
		b = b[n:]
		v, n := binary.Uvarint(b) // a number, or a length
		if n <= 0 || key&7 == 2 && v > uint64(len(b)-n) || key&7 != 0 && key&7 != 2 {
			return errHealthReply
		}
		b = b[n:]
		switch {
		case key == 1<<3:
			status = v
		case key&7 == 2:
			b = b[v:]
		}
	}
	if status == serving {
		return nil
	}
	name := servingStatus[status]
	if name == "" {
		name = strconv.FormatUint(status, 10)
	}
	return notServing("the service says that it is %s", name)
}

// nobody is the wire of an exchange that is ours.
type nobody struct{}

// Inform implements exchange.Wire.
func (nobody) Inform(*exchange.Exchange, int, *exchange.Header) error { return nil }

// Reply implements exchange.Wire.
func (nobody) Reply(*exchange.Exchange) error { return errors.ErrUnsupported }

// Interrupt implements exchange.Wire.
func (nobody) Interrupt() {}

// lone is the owner of a connection for one call.
type lone struct{}

// Free implements client.Owner.
func (lone) Free(c *client.Conn) { c.Retire() }

// Leaving implements client.Owner.
func (lone) Leaving(*client.Conn) {}
