package h3

import "strings"

// lower returns a field's name as HTTP/3 spells it (RFC 9114 section 4.2), without allocating for those that are common.
func lower(name string) string {
	if !upper(name) {
		return name
	}
	if l, ok := spelled[name]; ok {
		return l
	}
	return strings.ToLower(name)
}

// spelled are names as servers of HTTP/1.1 and our policies write them.
var spelled = func() map[string]string {
	m := map[string]string{}
	for _, name := range []string{
		"Accept-Ranges", "Access-Control-Allow-Credentials", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods",
		"Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Access-Control-Max-Age", "Age", "Allow", "Alt-Svc",
		"Cache-Control", "Connection", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length",
		"Content-Location", "Content-Range", "Content-Security-Policy", "Content-Type", "Cross-Origin-Opener-Policy",
		"Cross-Origin-Resource-Policy", "Date", "ETag", "Etag", "Expires", "Keep-Alive", "Last-Modified", "Link", "Location",
		"Permissions-Policy", "Pragma", "RateLimit", "RateLimit-Policy", "Referrer-Policy", "Retry-After", "Server", "Set-Cookie",
		"Strict-Transport-Security", "Trailer", "Transfer-Encoding", "Upgrade", "Vary", "Via", "WWW-Authenticate",
		"X-Content-Type-Options", "X-Frame-Options", "X-Powered-By", "X-RateLimit-Limit", "X-RateLimit-Remaining",
		"X-RateLimit-Reset", "X-Request-Id", "X-Request-ID", "X-XSS-Protection",
	} {
		m[name] = strings.ToLower(name)
	}
	return m
}()
