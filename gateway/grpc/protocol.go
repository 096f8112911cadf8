// Package grpc is what a gateway has to know of gRPC, gRPC-Web and Connect so that policies need not: which exchanges are
// calls, until when they may last, how a reply of ours reads to their clients, and gRPC-Web as gRPC and back. The engine
// asks it at five places; everything between sees ordinary requests and replies.
//
// Sources: grpc/grpc doc/PROTOCOL-HTTP2.md, doc/PROTOCOL-WEB.md, doc/statuscodes.md, doc/http-grpc-status-mapping.md, and
// connectrpc.com/docs/protocol.
package grpc

import (
	"strings"

	"headgate/gateway/exchange"
)

// protocol is what a call speaks.
type protocol uint8

const (
	native        protocol = iota // gRPC
	web                           // gRPC-Web, binary
	webText                       // gRPC-Web, base64
	connectUnary                  // Connect, one message in a plain body
	connectStream                 // Connect, enveloped messages
)

func (p protocol) isWeb() bool     { return p == web || p == webText }
func (p protocol) isConnect() bool { return p == connectUnary || p == connectStream }

// The media types that calls have, each with an optional +subtype.
const (
	typeGRPC    = "application/grpc"
	typeWeb     = "application/grpc-web"
	typeWebText = "application/grpc-web-text"
	typeConnect = "application/connect"
)

// recognize tells which protocol a request speaks, and what stands behind the media type's stem, such as "+proto".
func recognize(r *exchange.Request) (p protocol, subtype string, ok bool) {
	if r.Method != "POST" {
		// Connect asks for what has no side effects by GET.
		return connectUnary, "", r.Method == "GET" && r.HasQuery && strings.Contains(r.Query, "connect=v1")
	}
	contentType := r.Header.Get("Content-Type")
	const prefix = "application/"
	if len(contentType) < len(typeGRPC)-1 || !exchange.EqualFold(contentType[:len(prefix)], prefix) {
		return 0, "", false
	}
	switch contentType[len(prefix)] | 0x20 {
	case 'g':
		return readType(contentType)
	case 'c':
		subtype, ok = stem(contentType, typeConnect)
		return connectStream, subtype, ok && strings.HasPrefix(subtype, "+")
	case 'p', 'j':
		media, _, _ := strings.Cut(contentType, ";")
		media = strings.TrimSpace(media)
		unary := exchange.EqualFold(media, "application/proto") || exchange.EqualFold(media, "application/json")
		return connectUnary, "", unary && r.Header.Has("Connect-Protocol-Version")
	}
	return 0, "", false
}

// readType tells which of gRPC's own protocols a media type is.
func readType(contentType string) (p protocol, subtype string, ok bool) {
	if subtype, ok = stem(contentType, typeGRPC); ok {
		return native, subtype, true
	}
	if subtype, ok = stem(contentType, typeWeb); ok {
		return web, subtype, true
	}
	subtype, ok = stem(contentType, typeWebText)
	return webText, subtype, ok
}

// stem cuts a media type's stem off: what follows it is nothing, a subtype or parameters.
func stem(contentType, media string) (rest string, ok bool) {
	if len(contentType) < len(media) || !exchange.EqualFold(contentType[:len(media)], media) {
		return "", false
	}
	rest = contentType[len(media):]
	return rest, rest == "" || rest[0] == '+' || rest[0] == ';' || rest[0] == ' '
}

// wantsText reports whether a gRPC-Web client wants its reply in base64: what Accept names first of the two, and without
// either, as it asked.
func wantsText(h *exchange.Header, asked protocol) bool {
	for item := range strings.SplitSeq(h.Joined("Accept"), ",") {
		if p, _, ok := readType(strings.TrimSpace(item)); ok && p.isWeb() {
			return p == webText
		}
	}
	return asked == webText
}
