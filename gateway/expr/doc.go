// Package expr is what can be said about an exchange in a document: conditions, values and templates. It implements
// policy.Compiler.
//
// # Variables
//
//	consumer          text    name of the known caller; "" when nobody is known
//	groups            list    groups of the known caller
//	labels.NAME       text    label of the known caller
//	claim.NAME        value   claim of a verified token; claim.a.b and claim["a.b"] go down into objects
//	client.ip         text    address of the client, behind trusted proxies if there are any
//	client.trusted    bool    the other end of the connection is a trusted proxy
//	client.secure     bool    it is encrypted, or a trusted proxy says so
//	client.tls.NAME   text    version, cipher, server_name, alpn; bool: resumed, early
//	client.cert.NAME  text    subject, issuer, serial, thumbprint of a verified certificate; list: dns, emails, uris, ips
//	request.method    text    and request.path, request.query, request.host (lower case, no port), request.scheme
//	header.NAME       text    first field of that name, in any case; header.x-tenant and header["x-tenant"] are the same
//	query.NAME        text    first query parameter of that name, decoded
//	cookie.NAME       text    first cookie of that name
//	path.NAME         text    what {NAME} in the route's path captured, decoded
//	api, route        text    what matched, and version
//	id                text    the correlation id
//	now               time    when the request's head was complete
//	reply.status      int     0 while there is no reply
//	reply.header.NAME text    first field of that name of the reply
//
// A name that is not there (a header, a claim, a label) reads as ""; has(header.x) and "x" in header tell the difference.
//
// # When there is no answer
//
// An evaluation can fail: a claim has another type than the expression expects, or looking at what the client sent would
// cost more than allowed. Then a condition returns an error, a value or template has "" in that place, and
// headgate_expression_failures_total counts it. A policy's "when" that fails counts as true for policies that guard
// (stages admit to validate) and as false for those that shape or remember replies.
//
// # Cost
//
// Plain expressions (a variable; its comparison with a literal by ==, !=, <, <=, >, >=, in, startsWith, endsWith or
// contains; has(); inCIDR with literal ranges; these combined by !, &&, || and parentheses) cost a few nanoseconds and
// allocate nothing. Everything else is CEL: some hundred nanoseconds. Both mean the same.
package expr
