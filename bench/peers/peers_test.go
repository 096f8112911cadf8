package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// shapes are settings of every kind of case.
func shapes(dir string) map[string]Settings {
	base := Settings{
		Dir: dir, Listen: "127.0.0.1:18080", Admin: "127.0.0.1:19080", Upstream: "127.0.0.1:17070", Files: 1024, Connections: 512,
	}
	guarded, jwt, routes, bodies := base, base, base, base
	guarded.Log, guarded.Keys = filepath.Join(dir, "access.log"), []Key{{"shop", "key-1", "9f86"}, {"lab", "key-2", "0a1b"}}
	jwt.JWT = &JWT{Algorithm: "RS256", Issuer: "https://login.example.com", Audience: "shop", PEM: publicKey}
	routes.Routes, routes.Generation, routes.Reloads = []string{"/v1/a", "/v1/b"}, 7, true
	bodies.Bodies = true
	grpc, webSocket := base, base
	grpc.GRPC, webSocket.WebSocket = true, true
	survive := func(with Survival) Settings {
		s := base
		with.Targets = []string{"127.0.0.1:17070", "127.0.0.1:17071"}
		s.Survival = &with
		return s
	}
	return map[string]Settings{
		"survive": survive(Survival{}), "hedge": survive(Survival{Hedge: true}), "discovery": survive(Survival{Discovery: true}),
		"capacity": survive(Survival{Workers: 10, Capacity: 200}),
		"fair":     survive(Survival{Workers: 10, Capacity: 200, Keys: guarded.Keys}),
		"grpc":     grpc, "websocket": webSocket,
		"plain": base, "guarded": guarded, "jwt": jwt, "routes": routes, "bodies": bodies,
	}
}

// The public half of a throw-away key; HAProxy reads it while it checks its configuration.
const publicKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEiZ2BL3FBNKUFT+tIDpEBVHm2QGko
F8DU+mhFuHPKzXK4X7WC7GP5UIGkHnBp+10kDynRA7/eI5Ewyo1jdP9jGQ==
-----END PUBLIC KEY-----
`

func TestConfigurationsAreWhatTheContestantsAccept(t *testing.T) {
	for name, check := range map[Kind]func(string) *exec.Cmd{
		Nginx: func(path string) *exec.Cmd {
			return exec.Command("nginx", "-t", "-q", "-p", filepath.Dir(path), "-c", path)
		},
		NginxTuned: func(path string) *exec.Cmd {
			return exec.Command("nginx", "-t", "-q", "-p", filepath.Dir(path), "-c", path)
		},
		HAProxy: func(path string) *exec.Cmd { return exec.Command("haproxy", "-c", "-q", "-f", path) },
	} {
		t.Run(string(name), func(t *testing.T) {
			for shape, s := range shapes(t.TempDir()) {
				path, err := Write(name, s)
				if err != nil {
					t.Fatal(err)
				}
				cmd := check(path)
				if cmd.Err != nil {
					t.Skip(cmd.Err)
				}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", shape, err, out)
				}
			}
		})
	}
}

func TestEveryDocumentOfHeadgateIsYAMLWithTheValuesOfItsCase(t *testing.T) {
	for shape, want := range map[string][]string{
		"plain":   {"address: \"127.0.0.1:18080\"", "http://127.0.0.1:17070"},
		"guarded": {"shop: {keys: [\"sha256:9f86\"]}", "lab: {keys:", "access.log"},
		"jwt":     {"https://login.example.com", "public.pem"},
		"routes":  {"r0: {match: \"/a/**\"}", "r1: {match: \"/b/**\"}", "respond: {body: \"7\"}"},
		"bodies":  {"everything:"},
		"grpc":    {"h2c://127.0.0.1:17070"},

		"survive":   {"- http://127.0.0.1:17070\n      - http://127.0.0.1:17071"},
		"hedge":     {"hedge: {}"},
		"discovery": {"discover: {file: ", "targets.json"},
		"fair":      {"api-key: {}", "shop: {keys: [\"sha256:9f86\"]}"},
	} {
		path, err := Write(Headgate, shapes(t.TempDir())[shape])
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var document map[string]any
		if err := yaml.Unmarshal(text, &document); err != nil {
			t.Errorf("%s: %v\n%s", shape, err, text)
		}
		for _, w := range want {
			if !strings.Contains(string(text), w) {
				t.Errorf("%s: no %q in\n%s", shape, w, text)
			}
		}
	}
}

func TestHeadgateIsNotToldWhatItsTargetsCanDo(t *testing.T) {
	for kind, told := range map[Kind]bool{Headgate: false, Nginx: true, HAProxy: true} {
		path, err := Write(kind, shapes(t.TempDir())["capacity"])
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		limit := strings.Contains(string(text), "limit_conn all 20") || strings.Contains(string(text), "maxconn 10")
		if limit != told {
			t.Errorf("%s: told %v\n%s", kind, limit, text)
		}
	}
}

func TestMapsOfHAProxyNameEveryKeyAndRoute(t *testing.T) {
	dir := t.TempDir()
	s := shapes(dir)["guarded"]
	s.Routes = []string{"/v1/a"}
	if _, err := Write(HAProxy, s); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"keys.map": "key-1 shop\nkey-2 lab\n", "routes.map": "/v1/a/ origin\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestAnUnknownContestantIsNamedWithThoseThatThereAre(t *testing.T) {
	_, err := Write("apache", shapes(t.TempDir())["plain"])
	if err == nil || !strings.Contains(err.Error(), `no contestant is called "apache"; there are headgate, nginx, nginx-tuned, haproxy`) {
		t.Fatal(err)
	}
}

func TestWhoCanDoWhat(t *testing.T) {
	all := shapes(t.TempDir())
	for _, c := range []struct {
		kind  Kind
		shape string
		can   bool
	}{
		{Nginx, "plain", true}, {Nginx, "jwt", false}, {HAProxy, "jwt", true}, {Headgate, "jwt", true},
		{Nginx, "hedge", false}, {HAProxy, "hedge", false}, {Headgate, "hedge", true},
		{Nginx, "fair", true}, {NginxTuned, "fair", false},
		{NginxTuned, "plain", false}, {NginxTuned, "guarded", true}, {NginxTuned, "bodies", true}, {NginxTuned, "routes", false},
	} {
		if got := c.kind.Can(all[c.shape]); got != c.can {
			t.Errorf("%s %s: %v", c.kind, c.shape, got)
		}
	}
}
