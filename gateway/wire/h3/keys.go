package h3

import (
	"crypto/tls"
	"slices"
	"strconv"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// quicConfig is what connections are opened with under the limits.
func quicConfig(l *Limits) *quic.Config {
	alive := max(l.IdleTime, leastIdle)
	return &quic.Config{
		HandshakeIdleTimeout:           l.HandshakeTime / 2, // the whole may take twice as long
		MaxIdleTimeout:                 alive,
		KeepAlivePeriod:                alive / 2,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         maxStreamWindow,
		InitialConnectionReceiveWindow: connectionWindow,
		MaxConnectionReceiveWindow:     maxConnectionWindow,
		MaxIncomingStreams:             maxStreams,
		MaxIncomingUniStreams:          maxUniStreams,
		RequireStreamCreditRelease:     true,
		Allow0RTT:                      l.EarlyData,
	}
}

// certificates is asked for every handshake, so that new certificates hold for the next one.
func (s *Server) certificates(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if v, ok := hello.Context().Value(visitKey{}).(*visit); ok {
		v.name.Store(&hello.ServerName)
	}
	c := s.settings.Load()
	if c.tls.GetConfigForClient == nil {
		return c.tls, nil
	}
	chosen, err := c.tls.GetConfigForClient(hello) // which prepare has wrapped
	if chosen == nil && err == nil {
		return c.tls, nil
	}
	return chosen, err
}

// prepare makes a listener's configuration one for HTTP/3: its ALPN alone, and tickets that remember the settings.
func prepare(base *tls.Config, l *Limits) *tls.Config {
	c := http3.ConfigureTLSConfig(base)
	c.MinVersion = tls.VersionTLS13
	if l.EarlyData {
		remember(c, "headgate h3 "+strconv.Itoa(l.Head))
	}
	if choose := base.GetConfigForClient; choose != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen == nil || err != nil {
				return nil, err
			}
			return prepare(chosen, l), nil
		}
	}
	return c
}

// remember writes the settings into tickets. A client that asks before it has seen our settings goes by the ones it knows
// from before, so early data is taken only if they are the same (RFC 9114 section 7.2.4.2).
func remember(c *tls.Config, settings string) {
	wrap, unwrap := c.WrapSession, c.UnwrapSession
	if wrap == nil {
		wrap = c.EncryptTicket
	}
	if unwrap == nil {
		unwrap = c.DecryptTicket
	}
	c.WrapSession = func(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, []byte(settings))
		return wrap(state, session)
	}
	c.UnwrapSession = func(identity []byte, state tls.ConnectionState) (*tls.SessionState, error) {
		session, err := unwrap(identity, state)
		if err != nil || session == nil {
			return session, err
		}
		if !slices.ContainsFunc(session.Extra, func(e []byte) bool { return string(e) == settings }) {
			session.EarlyData = false
		}
		return session, nil
	}
}
