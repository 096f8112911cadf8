package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"headgate/internal/testkit"
)

// talker is a gRPC service by grpc-go with a method of each streaming kind.
type talker struct {
	server  *grpc.Server
	address string
	ended   chan error  // why a call of Wait ended
	left    chan string // how much time a call of Wait had, as it was told
	waiting atomic.Int32
}

type word = wrapperspb.StringValue

func startTalker(t *testing.T) *talker {
	t.Helper()
	s := &talker{server: grpc.NewServer(), ended: make(chan error, 8), left: make(chan string, 8)}
	s.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Talker", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Collect", Handler: collect, ClientStreams: true},
			{StreamName: "Count", Handler: count, ServerStreams: true},
			{StreamName: "Talk", Handler: talk, ClientStreams: true, ServerStreams: true},
			{StreamName: "Wait", Handler: s.wait, ClientStreams: true, ServerStreams: true},
		},
	}, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(l) }()
	t.Cleanup(func() { s.server.Stop(); <-done })
	return s
}

// unary answers with what it was asked and with metadata before and after.
func unary(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := new(word)
	if err := decode(in); err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if err := grpc.SetHeader(ctx, metadata.Pairs("x-head", strings.Join(md.Get("x-asked"), ","))); err != nil {
		return nil, err
	}
	if err := grpc.SetTrailer(ctx, metadata.Pairs("x-tail", "1", "x-tail", "2", "x-bytes-bin", "\x00\xff")); err != nil {
		return nil, err
	}
	if in.Value == "fail" {
		return nil, status.Error(codes.FailedPrecondition, "100% no: ü")
	}
	return in, nil
}

func collect(_ any, s grpc.ServerStream) error {
	var all []string
	for in := new(word); ; in = new(word) {
		err := s.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			return s.SendMsg(&word{Value: strings.Join(all, "+")})
		}
		if err != nil {
			return err
		}
		all = append(all, in.Value)
	}
}

func count(_ any, s grpc.ServerStream) error {
	in := new(word)
	if err := s.RecvMsg(in); err != nil {
		return err
	}
	n, err := strconv.Atoi(in.Value)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	for i := range n {
		if err := s.SendMsg(&word{Value: strconv.Itoa(i)}); err != nil {
			return err
		}
	}
	return nil
}

// talk answers each message before it reads the next.
func talk(_ any, s grpc.ServerStream) error {
	for in := new(word); ; in = new(word) {
		err := s.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.SendMsg(&word{Value: in.Value + "!"})
		}
		if err != nil {
			return err
		}
	}
}

// wait sends one message and then nothing until the call is ended by somebody else.
func (s *talker) wait(_ any, stream grpc.ServerStream) error {
	left := "none"
	if at, ok := stream.Context().Deadline(); ok {
		left = time.Until(at).String()
	}
	s.left <- left
	s.waiting.Add(1)
	if err := stream.SendMsg(&word{Value: "waiting"}); err != nil {
		return err
	}
	<-stream.Context().Done()
	s.ended <- stream.Context().Err()
	return stream.Context().Err()
}

// callers starts the gateway with the document, in which LISTENER stands for its address, and returns a client of it.
func callers(t *testing.T, document string) (*grpc.ClientConn, *testkit.Gateway) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	address, err := testkit.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	gateway := testkit.Start(t, path, fmt.Sprintf("listeners: {public: {address: %q}}\n", address)+document)
	client, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() }) // a client closes
	return client, gateway
}

func patiently(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestGRPCOfEveryKindPasses(t *testing.T) {
	s := startTalker(t)
	client, gateway := callers(t, "upstreams: {talker: \"h2c://"+s.address+"\"}\n"+
		"apis: {talker: {upstream: talker, policies: [compress: {types: [\"application/*\"], min_size: 0}, body-limit: {max: 1MiB}]}}\n")
	ctx := metadata.AppendToOutgoingContext(patiently(t), "x-asked", "yes")

	var head, tail metadata.MD
	out := new(word)
	err := client.Invoke(ctx, "/test.Talker/Unary", &word{Value: "hello"}, out, grpc.Header(&head), grpc.Trailer(&tail))
	if err != nil || out.Value != "hello" || strings.Join(head.Get("x-head"), "") != "yes" ||
		strings.Join(tail.Get("x-tail"), ",") != "1,2" || strings.Join(tail.Get("x-bytes-bin"), "") != "\x00\xff" {
		t.Errorf("unary: %q %v\n%v\n%v", out.Value, err, head, tail)
	}
	err = client.Invoke(ctx, "/test.Talker/Unary", &word{Value: "fail"}, out)
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "100% no: ü" {
		t.Errorf("a service's own error: %v", err)
	}

	up, err := client.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/test.Talker/Collect")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := up.SendMsg(&word{Value: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(up.CloseSend(), up.RecvMsg(out)); err != nil || out.Value != "0+1+2" {
		t.Errorf("client streaming: %q %v", out.Value, err)
	}

	const many = 2000
	down, err := client.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Talker/Count")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(down.SendMsg(&word{Value: strconv.Itoa(many)}), down.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for i := range many {
		if err := down.RecvMsg(out); err != nil || out.Value != strconv.Itoa(i) {
			t.Fatalf("server streaming: message %d is %q, %v", i, out.Value, err)
		}
	}
	if err := down.RecvMsg(out); !errors.Is(err, io.EOF) {
		t.Errorf("server streaming ends with %v", err)
	}

	both, err := client.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Talker/Talk")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		said := strconv.Itoa(i)
		if err := errors.Join(both.SendMsg(&word{Value: said}), both.RecvMsg(out)); err != nil || out.Value != said+"!" {
			t.Fatalf("a conversation: %q %v", out.Value, err)
		}
	}
	if err := errors.Join(both.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if err := both.RecvMsg(out); !errors.Is(err, io.EOF) {
		t.Errorf("a conversation ends with %v", err)
	}
	metrics := gateway.Ask("/metrics")
	for code, n := range map[string]int{"OK": 4, "FAILED_PRECONDITION": 1} {
		want := fmt.Sprintf(`headgate_grpc_calls_total{api="talker",route="(all)",grpc_status="%s"} %d`, code, n)
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// begin starts a call that waits, and returns when the service waits.
func (s *talker) begin(t *testing.T, ctx context.Context, client *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	stream, err := client.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Talker/Wait")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(word)); err != nil {
		t.Fatal(err)
	}
	return stream
}

// sees fails unless the service learns in time that its call has ended.
func (s *talker) sees(t *testing.T) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		t.Error("the service does not learn that the call has ended")
	}
}

func TestGRPCDeadlinesBoundTheExchange(t *testing.T) {
	s := startTalker(t)
	client, _ := callers(t, "upstreams: {talker: \"h2c://"+s.address+"\"}\n"+
		"apis: {talker: {upstream: talker, grpc: {max_deadline: 400ms}}}\n")
	for name, limit := range map[string]time.Duration{"the client's": 200 * time.Millisecond, "the document's": patience} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			began := time.Now()
			stream := s.begin(t, ctx, client)
			err := stream.RecvMsg(new(word))
			if status.Code(err) != codes.DeadlineExceeded || time.Since(began) > patience/2 {
				t.Errorf("%v after %v", err, time.Since(began))
			}
			left, err := time.ParseDuration(<-s.left)
			if err != nil || left <= 0 || left > min(limit, 400*time.Millisecond) {
				t.Errorf("the service was told %v, %v", left, err)
			}
			s.sees(t)
		})
	}
}

func TestGRPCCancellationReachesTheService(t *testing.T) {
	s := startTalker(t)
	client, gateway := callers(t, "upstreams: {talker: \"h2c://"+s.address+"\"}\napis: {talker: {upstream: talker}}\n")
	ctx, cancel := context.WithCancel(patiently(t))
	stream := s.begin(t, ctx, client)
	cancel()
	if err := stream.RecvMsg(new(word)); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	s.sees(t)
	want := `headgate_grpc_calls_total{api="talker",route="(all)",grpc_status="CANCELLED"} 1`
	for deadline := time.Now().Add(patience); !strings.Contains(gateway.Ask("/metrics"), want); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the metrics lack %s", want)
		}
	}
}

func TestGRPCStreamsOfAServiceThatDiesEndAsUnavailable(t *testing.T) {
	s := startTalker(t)
	client, _ := callers(t, "upstreams: {talker: \"h2c://"+s.address+"\"}\napis: {talker: {upstream: talker}}\n")
	stream := s.begin(t, patiently(t), client)
	s.server.Stop()
	if err := stream.RecvMsg(new(word)); status.Code(err) != codes.Unavailable ||
		strings.Join(stream.Trailer().Get("headgate-code"), "") != "upstream_closed" {
		t.Errorf("%v %v", err, stream.Trailer())
	}
}

// What the gateway and its policies refuse by HTTP statuses, a gRPC client reads as a status of its own.
func TestGRPCClientsReadWhatTheGatewayAnswers(t *testing.T) {
	s := startTalker(t)
	page := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<html>502</html>")
	}))
	page.Config.Protocols = new(http.Protocols)
	page.Config.Protocols.SetUnencryptedHTTP2(true)
	page.Start()
	t.Cleanup(page.Close)
	dead, err := testkit.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "access.log")
	client, gateway := callers(t, "upstreams:\n  talker: \"h2c://"+s.address+"\"\n  page: \"h2c://"+page.Listener.Addr().String()+
		"\"\n  dead: \"h2c://"+dead+"\"\n"+`
apis:
  all:
    upstream: talker
    routes:
      keyed: {match: /keyed/Call, policies: [api-key]}
      filtered: {match: /filtered/Call, policies: [ip-filter: {deny: ["127.0.0.0/8"]}]}
      limited: {match: /limited/Call, policies: [rate-limit: {limit: 1, per: 1h, burst: 1}], respond: {status: 204}}
      large: {match: /large/Call, policies: [body-limit: {max: 16B}]}
      fixed: {match: /fixed/Call, respond: {status: 409}}
      page: {match: /page/Call, upstream: page}
      dead: {match: /dead/Call, upstream: dead}
consumers: {ann: {keys: ["sha256:2a97516c354b68848cdbd8f54a226a0a55b21ed138e207ad6c5cbb9c00aa5aea"]}}
log: {access: {to: "`+log+`"}}
`)
	ctx := patiently(t)
	call := func(path string) (*status.Status, metadata.MD) {
		var tail metadata.MD
		err := client.Invoke(ctx, path, &word{Value: strings.Repeat("large", 100)}, new(word), grpc.Trailer(&tail))
		return status.Convert(err), tail
	}
	call("/limited/Call") // the one that is allowed
	for _, c := range []struct {
		path          string
		want          codes.Code
		code, message string
	}{
		{"/keyed/Call", codes.Unauthenticated, "api_key_missing", ""},
		{"/filtered/Call", codes.PermissionDenied, "address_forbidden", ""},
		{"/limited/Call", codes.ResourceExhausted, "rate_limit_exceeded", ""},
		{"/large/Call", codes.ResourceExhausted, "body_too_large", "16"},
		{"/fixed/Call", codes.Aborted, "", "409"},
		{"/nowhere/Call", codes.Unimplemented, "route_not_found", "No API"},
		{"/page/Call", codes.Unavailable, "", "502"},
		{"/dead/Call", codes.Unavailable, "upstream_unreachable", "could not be reached"},
	} {
		began := time.Now()
		got, tail := call(c.path)
		code := strings.Join(tail.Get("headgate-code"), "")
		if got.Code() != c.want || !strings.Contains(got.Message(), c.message) || time.Since(began) > patience/2 {
			t.Errorf("%s: %v after %v, want %v", c.path, got, time.Since(began), c.want)
		}
		if c.code != "" && code != c.code {
			t.Errorf("%s: code %q, want %q", c.path, code, c.code)
		}
		if c.path == "/limited/Call" && (len(tail.Get("retry-after")) != 1 || len(tail.Get("grpc-retry-pushback-ms")) != 1) {
			t.Errorf("%s does not say when to try again: %v", c.path, tail)
		}
	}
	if metrics := gateway.Ask("/metrics"); !strings.Contains(metrics, `route="dead",grpc_status="UNAVAILABLE"} 1`) {
		t.Error("the metrics lack the call to the dead service")
	}
	want := `"status":200,"source":"gateway","code":"upstream_unreachable"`
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		lines, err := os.ReadFile(log)
		if strings.Contains(string(lines), want) && strings.Contains(string(lines), `"grpc_status":14`) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the access log lacks %s and grpc_status: %v\n%s", want, err, lines)
		}
	}
}
