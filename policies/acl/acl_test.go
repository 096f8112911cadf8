package acl

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/gateway/exchange"
	"headgate/gateway/policy"
)

type token map[string]any

func (t token) Claim(path string) any {
	if v, ok := t[path]; ok {
		return v
	}
	if head, rest, ok := strings.Cut(path, "."); ok {
		if inner, ok := t[head].(map[string]any); ok {
			return token(inner).Claim(rest)
		}
	}
	return nil
}

func open(t testing.TB, options string) (policy.Hooks, decode.Problems) {
	t.Helper()
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(options), &node); err != nil {
		t.Fatal(err)
	}
	return Kind.Build(node.Content[0], policy.Env{})
}

var (
	partner = &exchange.Consumer{Name: "mobile-app", Groups: []string{"partners", "beta"}}
	old     = &exchange.Consumer{Name: "old-app", Groups: []string{"partners"}}
	loner   = &exchange.Consumer{Name: "loner"}
	reader  = token{"scope": "read list", "aud": []any{"shop", 7.0}, "verified": true,
		"realm": map[string]any{"roles": []any{"Super Admin", "clerk"}}}
)

func TestWhoMay(t *testing.T) {
	for _, c := range []struct {
		name, options string
		consumer      *exchange.Consumer
		claims        exchange.Claims
		code          string
	}{
		{"nobody", "{}", nil, nil, "caller_missing"},
		{"nobody, where only some are denied", "{deny: {consumers: [old-app]}}", nil, nil, "caller_missing"},
		{"anybody known by a key", "{}", loner, nil, ""},
		{"anybody known by a token", "{}", nil, reader, ""},
		{"a group", "{allow: {groups: [staff, partners]}}", partner, nil, ""},
		{"not in the group", "{allow: {groups: [staff, partners]}}", loner, nil, "caller_forbidden"},
		{"a token without a consumer is in no group", "{allow: {groups: [staff]}}", nil, reader, "caller_forbidden"},
		{"by name", "{allow: {consumers: [loner]}}", loner, nil, ""},
		{"by name or by group", "{allow: {consumers: [loner], groups: [partners]}}", old, nil, ""},
		{"deny wins over the group", "{allow: {groups: [partners]}, deny: {consumers: [old-app]}}", old, nil, "caller_forbidden"},
		{"others of the group still may", "{allow: {groups: [partners]}, deny: {consumers: [old-app]}}", partner, nil, ""},
		{"deny wins over the name", "{allow: {consumers: [mobile-app]}, deny: {groups: [beta]}}", partner, nil, "caller_forbidden"},
		{"one of the scopes", "{claims: {scope: [write, read]}}", nil, reader, ""},
		{"all of the scopes", "{claims: {scope: [list, read]}, match: all}", nil, reader, ""},
		{"not all of the scopes", "{claims: {scope: [read, write]}, match: all}", nil, reader, "insufficient_scope"},
		{"none of the scopes", "{claims: {scope: [write]}}", nil, reader, "insufficient_scope"},
		{"part of a word is not the word", "{claims: {scope: [rea]}}", nil, reader, "insufficient_scope"},
		{"a role with a space", "{claims: {realm.roles: [Super Admin]}}", nil, reader, ""},
		{"a word of a role is not the role", "{claims: {realm.roles: [Super]}}", nil, reader, "insufficient_scope"},
		{"a truth", `{claims: {verified: ["true"]}}`, nil, reader, ""},
		{"an untruth", `{claims: {verified: ["false"]}}`, nil, reader, "insufficient_scope"},
		{"every claim must fit", "{claims: {scope: [read], realm.roles: [admin]}}", nil, reader, "insufficient_scope"},
		{"a claim that is not there", "{claims: {tenant: [a]}}", nil, reader, "insufficient_scope"},
		{"an object is no value", "{claims: {realm: [roles]}}", nil, reader, "insufficient_scope"},
		{"a number is no value", `{claims: {aud: ["7"]}}`, nil, reader, "insufficient_scope"},
		{"a consumer without a token", "{claims: {scope: [read]}}", partner, nil, "insufficient_scope"},
		{"claims do not outweigh deny", "{deny: {consumers: [loner]}, claims: {scope: [read]}}", loner, reader, "caller_forbidden"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hooks, problems := open(t, c.options)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			x := &exchange.Exchange{Consumer: c.consumer, Claims: c.claims}
			v := hooks.Request.Now(x)
			code := ""
			if x.Err != nil {
				code = x.Err.Code.Name
			}
			if code != c.code || v.Continues() != (c.code == "") {
				t.Errorf("got %q, want %q", code, c.code)
			}
			if code == "caller_missing" && (x.Reply.Status != 401 || x.Reply.Header.Get("WWW-Authenticate") != "Bearer") {
				t.Errorf("answered %d with challenge %q", x.Reply.Status, x.Reply.Header.Get("WWW-Authenticate"))
			}
		})
	}
}

func TestARefusalNamesTheScopeThatIsNeeded(t *testing.T) {
	for options, want := range map[string]string{
		"{claims: {scope: [write, admin]}}": `Bearer error="insufficient_scope", scope="write admin"`,
		`{claims: {scope: ['a"b']}}`:        `Bearer error="insufficient_scope"`,
		"{claims: {role: [boss]}}":          `Bearer error="insufficient_scope"`,
	} {
		hooks, _ := open(t, options)
		x := &exchange.Exchange{Claims: reader}
		hooks.Request.Now(x)
		if got := x.Reply.Header.Get("WWW-Authenticate"); got != want || x.Reply.Status != 403 {
			t.Errorf("%s: %d %s, want 403 %s", options, x.Reply.Status, got, want)
		}
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, options := range []string{
		"{claims: {scope: []}}", "{allow: {groups: ['']}}", "{deny: {consumers: [' ']}}", "{match: some}", "{groups: [a]}",
	} {
		if _, problems := open(t, options); len(problems) != 1 {
			t.Errorf("%s: %d problems, want 1: %v", options, len(problems), problems)
		}
	}
}

func TestAuthorizingAllocatesNothing(t *testing.T) {
	hooks, _ := open(t, "{allow: {groups: [partners]}, deny: {consumers: [old-app]}, claims: {scope: [read, list]}, match: all}")
	x := &exchange.Exchange{Consumer: partner, Claims: reader}
	if n := testing.AllocsPerRun(100, func() {
		if !hooks.Request.Now(x).Continues() {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
