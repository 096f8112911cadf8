// Package demo is a small shop in JSON to put a gateway in front of: three services with the same orders, customers and
// products at every start. Each also does on request what gateways must cope with: slow, failing, streamed, big.
package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// grace is how long exchanges may finish after the context is done.
	grace = 3 * time.Second
	// headerTimeout stops clients that never finish their head.
	headerTimeout = 10 * time.Second
)

// Service is one of the shop's services.
type Service struct {
	Name    string // orders, customers or products
	Address string // where it listens unless told otherwise
	Try     string // a path that shows what it does
}

// Services lists the shop's services with their default addresses.
func Services() []Service {
	return []Service{
		{"orders", "127.0.0.1:9101", "/orders"},
		{"customers", "127.0.0.1:9102", "/customers/c-1"},
		{"products", "127.0.0.1:9103", "/products?limit=3"},
	}
}

// Run serves the shop until the context is done. addresses says by service name where to listen (host:port); a service
// that it does not name listens at its default address. It returns an error when an address cannot be taken, before
// anything is served.
func Run(ctx context.Context, addresses map[string]string, log *slog.Logger) error {
	type running struct {
		server   *http.Server
		listener net.Listener
	}
	var servers []running
	shop := newShop()
	for _, s := range Services() {
		address := s.Address
		if a := addresses[s.Name]; a != "" {
			address = a
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			for _, r := range servers {
				err = errors.Join(err, r.listener.Close())
			}
			return fmt.Errorf("the demo's %s cannot listen on %s: %w", s.Name, address, err)
		}
		handler := onRequest(shop.handler(s.Name))
		servers = append(servers, running{&http.Server{Handler: handler, ReadHeaderTimeout: headerTimeout}, l})
		log.Info("demo service listens", "service", s.Name, "address", l.Addr().String())
	}
	failed := make(chan error, len(servers))
	for _, r := range servers {
		go func() { failed <- r.server.Serve(r.listener) }()
	}
	var err error
	done := 0
	select {
	case <-ctx.Done():
	case err = <-failed:
		done++
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	for _, r := range servers {
		if r.server.Shutdown(stop) != nil {
			err = errors.Join(err, r.server.Close())
		}
	}
	for ; done < len(servers); done++ {
		if e := <-failed; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}
