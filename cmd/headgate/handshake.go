package main

import (
	"crypto/tls"

	"headgate/config/model"
	"headgate/gateway/exchange"
	"headgate/gateway/listen"
	"headgate/internal/sock"
)

// handshake returns the step that encrypts a connection; nil in clear.
func handshake(m *model.ListenerTLS) listen.Step {
	if m == nil {
		return nil
	}
	config := &tls.Config{NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true, MinVersion: tls.VersionTLS12}
	for _, c := range m.Certificates {
		if pair, err := tls.LoadX509KeyPair(c.Cert, c.Key); err == nil {
			config.Certificates = append(config.Certificates, pair)
		}
	}
	return func(c *sock.Conn, client *exchange.Client) error {
		layer := tls.Server(c.Below(), config)
		c.Arm(sock.PhaseWrite, m.Timeout)
		if err := layer.Handshake(); err != nil {
			return err
		}
		c.Disarm()
		c.Over(layer)
		state := layer.ConnectionState()
		client.TLS = &exchange.TLS{Version: tls.VersionName(state.Version), ServerName: state.ServerName, ALPN: state.NegotiatedProtocol}
		return nil
	}
}
