package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"headgate/internal/demo"
)

// demoCommand serves the demo shop: alone, for a gateway that runs elsewhere, or behind one over TLS.
func demoCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "demo",
		Short: "Serve a small shop in JSON to put a gateway in front of",
		Long: "Serves three services until it is stopped: orders, customers and products, the same at every start.\n\n" +
			"On every path ?slow=500ms answers late, ?fail=503 fails, ?fail=503&rate=0.25 fails every fourth time.\n" +
			"Every service has /healthz, /echo (what arrived), /stream and /events (?count=5&every=100ms) and /big?size=1048576.\n" +
			"\"headgate run --demo FILE\" runs the same services beside the gateway. With --tls a gateway stands in front of them, with\n" +
			"the document of examples/shop.yaml and a certificate of this machine's own authority (see headgate ca).",
		Example: "  headgate demo\n" +
			"  headgate demo --tls\n" +
			"  headgate demo --orders 127.0.0.1:7001\n" +
			"  curl http://127.0.0.1:9101/orders?limit=2",
		Args: takes(0),
	}
	addresses := map[string]*string{}
	for _, s := range demo.Services() {
		addresses[s.Name] = c.Flags().String(s.Name, s.Address, fmt.Sprintf("where the %s service listens (host:port)", s.Name))
	}
	var gateway demoGateway
	tls := c.Flags().Bool("tls", false, "put a gateway with HTTPS in front of the shop")
	c.Flags().StringVar(&gateway.address, "address", "127.0.0.1:8443", "with --tls: where the gateway listens (host:port)")
	c.Flags().StringVar(&gateway.admin, "admin", "127.0.0.1:9080", "with --tls: where operators ask it (host:port, or off)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		where := map[string]string{}
		for name, address := range addresses {
			where[name] = *address
		}
		if *tls {
			gateway.services = where
			return gateway.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		}
		return demo.Run(c.Context(), where, slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil)))
	}
	return c
}
