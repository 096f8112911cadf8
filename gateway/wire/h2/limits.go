// Package h2 is HTTP/2 (RFC 9113) for clients: frames are parsed by golang.org/x/net/http2's Framer and field sections by
// its HPACK decoder; the connection between them, who may send what and when, is ours. One goroutine reads a connection,
// each request is carried by a goroutine of its own, and replies of several streams leave in one write.
package h2

import (
	"time"

	"headgate/gateway/exchange"
)

const (
	// maxStreams bounds what one connection may ask at one time. A stream that its client has given up counts until its
	// exchange has really ended, so that giving up does not make room for more work (rapid reset, CVE-2023-44487).
	maxStreams = 128
	// maxCarried bounds exchanges whose reply has been sent but whose end is still being recorded, on top of those.
	maxCarried = 2 * maxStreams
	// maxFrame is the largest payload that we take: the least that is allowed (RFC 9113 section 4.2). Larger ones would
	// only make clients hold a buffer of ours for longer.
	maxFrame = 16 << 10
	// streamWindow and connWindow are how many bytes of request bodies may wait for a slow upstream, in one stream and in
	// all of a connection's. They are the bound on memory that a connection's bodies can take.
	streamWindow = 256 << 10
	connWindow   = 1 << 20
	// maxFragments stops a head that comes in endless CONTINUATION frames, each of which brings little or nothing
	// (CVE-2024-27316). The bytes of all of them are bounded by blockRoom above the listener's limit.
	maxFragments = 32
	// blockRoom is how many bytes of a field section are decoded beyond Limits.Head, so that a head that is somewhat too
	// large gets its 431; one that is larger still ends the connection.
	blockRoom = 16 << 10
	// maxControl bounds the frames that wait to be sent although nothing of them is a reply: answers to SETTINGS and PING,
	// resets, windows. They grow only while a client asks and does not read (CVE-2019-9512, -9514, -9515).
	maxControl = 64 << 10
	// maxPast is of how many streams we remember how they ended: what was on its way when one was reset is ignored, and
	// everything else is an error.
	maxPast = 2 * maxStreams
	// leastReadRate, in bytes per second, stops a client that opens its window by a byte now and then in order to hold a
	// reply, and what the upstream has for it (CVE-2019-9511).
	leastReadRate = 240
	// rateGrace is how long a request body may be slow before MinBodyRate holds.
	rateGrace = 8 * time.Second
	// goodbyeTime is how long requests that were on their way when we said goodbye are still taken (RFC 9113 section 6.8).
	goodbyeTime = time.Second
	// lingerTime and lingerBytes bound what is read and thrown away of a client that is still sending when we have ended
	// the connection, so that it gets to read why.
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 10
	// leastPiece keeps what is left of a buffer from being filled with tiny frames.
	leastPiece = 1 << 10
	// idleWorkers is how many goroutines of each of workerShards wait for streams: a burst leaves no more of them behind.
	idleWorkers  = 64
	workerShards = 16
)

// What goes wrong with a body. The texts reach the client as the problem's detail.
func errBodyTooLarge() *exchange.Error { return fromClient(exchange.BodyTooLarge, "") }
func errSlowBody() *exchange.Error {
	return fromClient(exchange.RequestTimeout, "The request body came too slowly.")
}
func errGone() *exchange.Error { return fromClient(exchange.ClientGone, "") }

func fromClient(code exchange.Code, detail string) *exchange.Error {
	return &exchange.Error{Code: code, Source: exchange.FromClient, Detail: detail}
}
