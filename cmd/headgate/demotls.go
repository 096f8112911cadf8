package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"headgate/examples"
	"headgate/internal/clock"
	"headgate/internal/demo"
)

// demoGateway is the demo shop behind a gateway over TLS, in one command.
type demoGateway struct {
	address, admin string
	services       map[string]string // where each listens
}

// run serves until ctx is done.
func (g *demoGateway) run(ctx context.Context, out, log io.Writer) (err error) {
	document, err := g.document()
	if err != nil {
		return err
	}
	a, err := openAuthority(clock.System{})
	if err != nil {
		return fail(err)
	}
	folder, err := os.MkdirTemp("", "headgate-demo-")
	if err != nil {
		return fail(err)
	}
	defer func() {
		if removed := os.RemoveAll(folder); err == nil {
			err = fail(removed)
		}
	}()
	path := filepath.Join(folder, "shop.yaml")
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
		return fail(err)
	}
	_, port, err := net.SplitHostPort(g.address)
	if err != nil {
		return err
	}
	return run(ctx, path, runOptions{services: g.services, live: func() {
		_, _ = fmt.Fprintf(out, "The shop is at https://localhost:%s, by HTTP/1.1, HTTP/2 and HTTP/3. Try:\n\n"+
			"  curl -i --cacert %s -H \"X-Api-Key: demo\" https://localhost:%s/shop/orders\n\n"+
			"\"headgate ca --help\" says how to trust its certificates for good. Ctrl-C ends it.\n\n",
			port, a.RootFile(), port) // a hint; whoever closed it needs none
	}}, log)
}

// document is examples/shop.yaml with other doors.
func (g *demoGateway) document() (string, error) {
	if _, _, err := net.SplitHostPort(g.address); err != nil {
		return "", fmt.Errorf("--address: %q is not an address to listen on; write host:port, such as 127.0.0.1:8443", g.address)
	}
	_, rest, found := strings.Cut(examples.Shop(), "\nupstreams:")
	if !found {
		return "", fmt.Errorf("the document of the shop has no upstreams")
	}
	for _, s := range demo.Services() {
		rest = strings.ReplaceAll(rest, "http://"+s.Address, "http://"+g.services[s.Name])
	}
	return fmt.Sprintf("listeners:\n  public:\n    address: %q\n    protocols: [h1, h2, h3]\n"+
		"    tls: {internal: [localhost, 127.0.0.1, \"::1\"]}\n"+
		"admin: {address: %q}\nupstreams:%s", g.address, g.admin, rest), nil
}
