package expr

import (
	"slices"
	"strings"

	"headgate/gateway/exchange"
	"headgate/internal/expr"
)

// exchanged is a value found on one exchange.
type exchanged[T any] func(*exchange.Exchange) T

// variable is one name of the language and how its value is found. One of the functions is set, by its type.
type variable struct {
	expr.Variable
	text    exchanged[string]
	boolean exchanged[bool]
	number  exchanged[int]
	list    exchanged[[]string]
	look    lookup              // finds a name in a table of texts
	names   exchanged[[]string] // the names of a table of texts
}

type lookup func(x *exchange.Exchange, name string) (value string, ok bool)

func text(name, doc string, f exchanged[string]) variable {
	return variable{Variable: expr.Variable{Name: name, Type: expr.Text, Doc: doc}, text: f}
}

func table(name, doc string, look lookup, names exchanged[[]string]) variable {
	return variable{Variable: expr.Variable{Name: name, Type: expr.Texts, Doc: doc}, look: look, names: names}
}

// Variables lists what expressions may use, for the reference.
func Variables() []expr.Variable {
	var list []expr.Variable
	for _, v := range variables(new(addresses)) {
		list = append(list, v.Variable)
	}
	return list
}

func variables(ips *addresses) []variable {
	return slices.Concat(callerVariables(ips), tlsVariables(), requestVariables(), replyVariables())
}

func callerVariables(ips *addresses) []variable {
	return []variable{
		text("consumer", `Name of the known caller; "" when nobody is known.`, func(x *exchange.Exchange) string {
			if x.Consumer == nil {
				return ""
			}
			return x.Consumer.Name
		}),
		{
			Variable: expr.Variable{Name: "groups", Type: expr.List, Doc: "Groups of the known caller."},
			list: func(x *exchange.Exchange) []string {
				if x.Consumer == nil {
					return nil
				}
				return x.Consumer.Groups
			},
		},
		table("labels", "Labels of the known caller.", label, labelNames),
		{Variable: expr.Variable{Name: "claim", Type: expr.Values,
			Doc: `Claims of a verified token. claim.a.b and claim["a.b"] go down into objects.`}},
		text("client.ip", "Address of the client, behind trusted proxies if there are any.", func(x *exchange.Exchange) string {
			return ips.text(x.Client.IP)
		}),
		{
			Variable: expr.Variable{Name: "client.trusted", Type: expr.Bool, Doc: "Whether the other end of the connection is a trusted proxy."},
			boolean:  func(x *exchange.Exchange) bool { return x.Client.Trusted },
		},
	}
}

func requestVariables() []variable {
	return []variable{
		text("request.method", "Method, such as GET.", func(x *exchange.Exchange) string { return x.Request.Method }),
		text("request.path", "Path as it came, or as a policy before has rewritten it; without the query.",
			func(x *exchange.Exchange) string { return x.Request.Path }),
		text("request.query", "Query as it came, without the ?.", func(x *exchange.Exchange) string { return x.Request.Query }),
		text("request.host", "Host that was asked for, in lower case and without the port.",
			func(x *exchange.Exchange) string { return host(x.Request.Host) }),
		text("request.scheme", "http or https.", func(x *exchange.Exchange) string { return x.Request.Scheme }),
		table("header", "Header fields of the request, by name in any case; the first of that name.",
			func(x *exchange.Exchange, name string) (string, bool) { return x.Request.Header.Lookup(name) },
			func(x *exchange.Exchange) []string { return headerNames(&x.Request.Header) }),
		table("query", "Query parameters, decoded; the first of that name.",
			func(x *exchange.Exchange, name string) (string, bool) { return queryValue(x.Request.Query, name) }, queryNames),
		table("cookie", "Cookies; the first of that name.", cookieValue, cookieNames),
		table("path", "What {NAME} in the route's path captured, decoded.", param, paramNames),
		text("api", "Name of the API.", route(func(r *exchange.Route) string { return r.API })),
		text("version", "Version of the API.", route(func(r *exchange.Route) string { return r.Version })),
		text("route", "Name of the route.", route(func(r *exchange.Route) string { return r.Name })),
		text("variant", `Variant that a split has chosen; "" before the upstream is asked, and without a split.`,
			func(x *exchange.Exchange) string { return x.Usage.Variant }),
		{
			Variable: expr.Variable{Name: "upstream.waiting", Type: expr.Int,
				Doc: "Share of the requests to the route's upstream that lately had to wait for it, or were refused because it is busy, in percent."},
			number: func(x *exchange.Exchange) int {
				if x.Route == nil || x.Route.Waiting == nil {
					return 0
				}
				return x.Route.Waiting(x.Start)
			},
		},
		text("id", "The correlation id.", func(x *exchange.Exchange) string { return x.ID }),
		{Variable: expr.Variable{Name: "now", Type: expr.Time, Doc: "When the request's head was complete."}},
	}
}

func replyVariables() []variable {
	return []variable{
		{
			Variable: expr.Variable{Name: "reply.status", Type: expr.Int, Doc: "Status of the reply; 0 while there is none."},
			number:   func(x *exchange.Exchange) int { return x.Reply.Status },
		},
		table("reply.header", "Header fields of the reply, by name in any case; the first of that name.",
			func(x *exchange.Exchange, name string) (string, bool) { return x.Reply.Header.Lookup(name) },
			func(x *exchange.Exchange) []string { return headerNames(&x.Reply.Header) }),
	}
}

func route(name func(*exchange.Route) string) exchanged[string] {
	return func(x *exchange.Exchange) string {
		if x.Route == nil {
			return ""
		}
		return name(x.Route)
	}
}

// host takes the port from an authority and makes it lower case, which allocates only when it was not.
func host(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		authority = authority[:i]
	}
	return strings.ToLower(authority)
}

// claimed returns a claim; one that is missing or null is "".
func claimed(x *exchange.Exchange, path string) any {
	if x.Claims != nil {
		if v := x.Claims.Claim(path); v != nil {
			return v
		}
	}
	return ""
}
