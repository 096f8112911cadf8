package discover

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headgate/config/model"
	"headgate/internal/testkit/standin"
)

// ofKube returns a source for the service shop of a server on this machine.
func ofKube(address string, change func(*model.DiscoverKube)) *kube {
	m := model.DiscoverKube{Service: "shop", Namespace: "default", Address: address}
	if change != nil {
		change(&m)
	}
	k := newKube(m, func(string) string { return "" }, "/nowhere")
	k.random = func() float64 { return 0 }
	return k
}

func serveKube(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// watching waits until the source watches.
func watching(t *testing.T, k *standin.Kubernetes) {
	t.Helper()
	awaitUntil(t, func() bool { return k.Watches() == 1 })
}

func TestASliceIsFollowedByAListAndAWatch(t *testing.T) {
	t.Parallel()
	api := standin.NewKubernetes("")
	api.Put(standin.SliceOf("shop", "shop-1", 8080, "10.1.0.1"))
	api.Put(standin.SliceOf("other", "other-1", 8080, "10.1.9.9"))
	answers := watched(t, ofKube(serveKube(t, api), nil))
	addresses(t, answers, "10.1.0.1:8080")
	api.Put(standin.SliceOf("shop", "shop-2", 8080, "10.1.0.2"))
	addresses(t, answers, "10.1.0.1:8080 10.1.0.2:8080")
	api.Put(standin.SliceOf("shop", "shop-2", 8080, "10.1.0.3"))
	addresses(t, answers, "10.1.0.1:8080 10.1.0.3:8080")
	api.Delete("shop-1")
	addresses(t, answers, "10.1.0.3:8080")
	asked := api.Asked()
	const of = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?"
	want := []string{
		of + "labelSelector=kubernetes.io%2Fservice-name%3Dshop&limit=100&resourceVersion=0",
		of + "allowWatchBookmarks=true&labelSelector=kubernetes.io%2Fservice-name%3Dshop" +
			"&resourceVersion=102&timeoutSeconds=300&watch=1",
	}
	if !reflect.DeepEqual(asked, want) {
		t.Errorf("%q", asked)
	}
}

// A watch that ends is taken up where it ended, or where the last bookmark was; nothing is listed again.
func TestAWatchThatEndsIsTakenUpFromTheLastBookmark(t *testing.T) {
	t.Parallel()
	api := standin.NewKubernetes("")
	api.Put(standin.SliceOf("shop", "shop-1", 8080, "10.1.0.1"))
	answers := watched(t, ofKube(serveKube(t, api), nil))
	addresses(t, answers, "10.1.0.1:8080")
	watching(t, api)
	api.Bookmark(40)
	addresses(t, answers, "10.1.0.1:8080") // said anew: it is still so
	api.End()
	api.Put(standin.SliceOf("shop", "shop-2", 8080, "10.1.0.2")) // while nobody watches
	addresses(t, answers, "10.1.0.1:8080 10.1.0.2:8080")
	asked := api.Asked()
	lists := slices.DeleteFunc(slices.Clone(asked), func(s string) bool { return strings.Contains(s, "watch=1") })
	if len(lists) != 1 || !strings.Contains(asked[2], "resourceVersion=141&") {
		t.Errorf("%q", asked)
	}
}

func TestAVersionThatHasExpiredIsFollowedByAList(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]func(http.Handler) http.Handler{
		"inside the stream": func(h http.Handler) http.Handler { return h },
		"as a status": func(h http.Handler) http.Handler {
			gone := false
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if q := r.URL.Query(); q.Get("resourceVersion") == "101" && q.Get("watch") == "1" && gone {
					w.WriteHeader(http.StatusGone)
					fmt.Fprint(w, `{"kind":"Status","status":"Failure","message":"too old resource version","reason":"Expired","code":410}`)
					return
				}
				gone = gone || r.URL.Query().Get("watch") == "1"
				h.ServeHTTP(w, r)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			api := standin.NewKubernetes("")
			api.Put(standin.SliceOf("shop", "shop-1", 8080, "10.1.0.1"))
			answers := watched(t, ofKube(serveKube(t, how(api)), nil))
			addresses(t, answers, "10.1.0.1:8080")
			watching(t, api)
			api.Put(standin.SliceOf("other", "other-1", 8080, "10.1.9.9"))
			api.Forget()
			api.Delete("shop-1")
			api.Put(standin.SliceOf("shop", "shop-2", 8080, "10.1.0.2"))
			got := until(t, answers, "the new list", func(s said) bool { return s.err != nil || drawn(s.list) == "10.1.0.2:8080" })
			if got.err != nil {
				t.Errorf("an expiry is no failure: %v", got.err)
			}
			if last := api.Asked(); !slices.ContainsFunc(last, func(s string) bool { return strings.HasSuffix(s, "shop&limit=100") }) {
				t.Errorf("the list came from a cache: %q", last)
			}
		})
	}
}

func TestWhatAWatchMustNotSay(t *testing.T) {
	for _, test := range []struct{ line, says string }{
		{`{"type":"ERROR","object":{"kind":"Status","status":"Failure","message":"etcd is away","reason":"InternalError","code":500}}`,
			"kubernetes answers 500: etcd is away"},
		{"nonsense", "not of events"},
		{`{"type":"ADDED","object":{"kind":"Pod","metadata":{"resourceVersion":"9"}}}`, `but of "Pod"`},
		{`{"type":"MOVED","object":{"kind":"EndpointSlice","metadata":{"resourceVersion":"9"}}}`, `says "MOVED"`},
		{`{"type":"ADDED","object":[]}`, "not of EndpointSlices"},
		{`{"type":"ERROR","object":[]}`, "an error that cannot be read"},
		{`{"type":"ADDED","object":"` + strings.Repeat("a", maxLine) + `"}`, "token too long"},
	} {
		t.Run(test.says, func(t *testing.T) {
			t.Parallel()
			api := standin.NewKubernetes("")
			api.Put(standin.SliceOf("shop", "shop-1", 8080, "10.1.0.1"))
			answers := watched(t, ofKube(serveKube(t, api), nil))
			addresses(t, answers, "10.1.0.1:8080")
			watching(t, api)
			api.Tell(test.line)
			failing(t, answers, test.says)
			addresses(t, answers, "10.1.0.1:8080")
		})
	}
}

func TestATokenThatIsReplacedIsReadAgain(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	api := standin.NewKubernetes("first")
	api.Put(standin.SliceOf("shop", "shop-1", 8080, "10.1.0.1"))
	write("first")
	answers := watched(t, ofKube(serveKube(t, api), func(m *model.DiscoverKube) { m.TokenFile = file }))
	addresses(t, answers, "10.1.0.1:8080")
	watching(t, api)
	api.Rotate("second")
	failing(t, answers, "kubernetes answers 401: Unauthorized (the token is not, or no longer, good)")
	write("second")
	addresses(t, answers, "10.1.0.1:8080")
	api.Fail(http.StatusForbidden)
	failing(t, answers, `cannot list resource "endpointslices"`)
}

// A token that is replaced between the moment it was read and the answer is no failure.
func TestARefusedTokenIsReadOnceMoreAtOnce(t *testing.T) {
	var tokens []string
	server := serveKube(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer new" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	a := newAPI("kubernetes", server, nil, trust{})
	defer a.client.CloseIdleConnections()
	a.token = func() (string, error) {
		tokens = append(tokens, "x")
		return []string{"old", "new"}[min(len(tokens), 2)-1], nil
	}
	reply, err := a.get(t.Context(), "/", nil)
	if err != nil || reply.Body.Close() != nil || len(tokens) != 2 {
		t.Errorf("%v after %d readings", err, len(tokens))
	}
}

// In a pod everything comes from the account's folder and from the environment, and the certificate is verified.
func TestAPodFindsItsServerItsTokenAndItsNamespace(t *testing.T) {
	t.Parallel()
	api := standin.NewKubernetes("t0ken")
	api.Put(standin.SliceOf("shop", "shop-1", 8080, "10.1.0.1"))
	server := httptest.NewTLSServer(api)
	t.Cleanup(server.Close)
	folder := t.TempDir()
	env := map[string]string{}
	env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"], _ = strings.Cut(server.Listener.Addr().String(), ":")
	k := newKube(model.DiscoverKube{Service: "shop"}, func(name string) string { return env[name] }, folder)
	defer k.api.client.CloseIdleConnections()
	for _, step := range []struct{ says, file, text string }{
		{"the gateway's own namespace is not known; write namespace", "namespace", "default\n"},
		{"token: no such file", "token", "t0ken\n"},
		{"ca.crt: no such file", "ca.crt", "none"},
		{"holds no certificate", "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))},
	} {
		if err := k.follow(t.Context(), nil, nil); err == nil || !strings.Contains(err.Error(), step.says) {
			t.Errorf("%v; want %s", err, step.says)
		}
		if err := os.WriteFile(filepath.Join(folder, step.file), []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := addresses(t, watched(t, k), "10.1.0.1:8080"); got.list[0].Host != "shop.default.svc" {
		t.Errorf("%+v", got.list)
	}
	nobody := newKube(model.DiscoverKube{Service: "shop"}, func(string) string { return "" }, folder)
	failing(t, watched(t, nobody), "this is no pod of Kubernetes: KUBERNETES_SERVICE_HOST is not set")
}

func TestALongListComesInPages(t *testing.T) {
	t.Parallel()
	api := standin.NewKubernetes("")
	var want []string
	for i := range 2*pageSize + 1 {
		ip := fmt.Sprintf("10.1.%d.%d", 100+i/100, 100+i%100)
		api.Put(standin.SliceOf("shop", fmt.Sprintf("shop-%03d", i), 80, ip))
		want = append(want, ip+":80")
	}
	addresses(t, watched(t, ofKube(serveKube(t, api), nil)), strings.Join(want, " "))
	if asked := api.Asked(); !strings.Contains(asked[2], "continue=shop-199") {
		t.Errorf("%q", asked)
	}
}

// conditions of an endpoint, told as t and f, or not at all as -.
func conditions(ready, serving, terminating byte) (c standin.Conditions) {
	of := func(b byte) *bool {
		if b == '-' {
			return nil
		}
		is := b == 't'
		return &is
	}
	return standin.Conditions{Ready: of(ready), Serving: of(serving), Terminating: of(terminating)}
}

func TestConditionsSayWhetherAnEndpointIsUsed(t *testing.T) {
	for of, want := range map[string]string{
		"---": "used", "t--": "used", "ttf": "used", "t-f": "used", "f--": "out", "ff-": "out", "fff": "out", "ftf": "out",
		"ftt": "drains", "-tt": "drains", "fft": "out", "f-t": "out", "ttt": "drains", // publishNotReadyAddresses
	} {
		s := standin.SliceOf("shop", "s", 80, "10.1.0.1", "10.1.0.2")
		s.Endpoints[0].Conditions = conditions(of[0], of[1], of[2])
		list, err := ofSlices(t, "", s)
		got := map[string]string{
			"10.1.0.1:80 10.1.0.2:80": "used", "10.1.0.1:80! 10.1.0.2:80": "drains", "10.1.0.2:80": "out",
		}[drawn(list)]
		if got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", of, drawn(list), err, want)
		}
	}
}

// ofSlices sends slices through their JSON; zone is the gateway's.
func ofSlices(t testing.TB, zone string, all ...standin.Slice) ([]Target, error) {
	t.Helper()
	k := ofKube("http://127.0.0.1:1", func(m *model.DiscoverKube) { m.ForZone, m.Port = zone, "http" })
	k.namespace = "default"
	for _, s := range all {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		object := strings.Replace(string(text), `"resourceVersion":""`, `"resourceVersion":"7"`, 1)
		if _, err := k.take([]byte(`{"type":"ADDED","object":` + object + "}")); err != nil {
			t.Fatal(err)
		}
	}
	return k.targets()
}

func TestSlicesAreMerged(t *testing.T) {
	six := standin.SliceOf("shop", "six", 81, "fd00::2")
	six.AddressType = "IPv6"
	names := standin.SliceOf("shop", "names", 80, "shop.example")
	names.AddressType = "FQDN"
	old, moved := standin.SliceOf("shop", "a", 80, "10.1.0.1"), standin.SliceOf("shop", "b", 80, "10.1.0.1", "10.1.0.2")
	old.Endpoints[0].Conditions = conditions('f', 't', 't')
	moved.Endpoints[1].Zone = "b"
	list, err := ofSlices(t, "", six, names, old, moved)
	want := []Target{
		{Address: "10.1.0.1:80", Host: "shop.default.svc", Weight: 1}, {Address: "10.1.0.2:80", Host: "shop.default.svc", Weight: 1, Zone: "b"},
		{Address: "[fd00::2]:81", Host: "shop.default.svc", Weight: 1},
	}
	if err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestEndpointsThatAllEndAreUsedWhileTheyServe(t *testing.T) {
	s := standin.SliceOf("shop", "s", 80, "10.1.0.1", "10.1.0.2")
	s.Endpoints[0].Conditions, s.Endpoints[1].Conditions = conditions('f', 't', 't'), conditions('f', 'f', 't')
	if list, err := ofSlices(t, "", s); drawn(list) != "10.1.0.1:80" || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func TestEndpointsAreMeantForZones(t *testing.T) {
	hinted := func(zones ...string) standin.Slice {
		s := standin.SliceOf("shop", "s", 80)
		for i, z := range zones {
			e := standin.SliceOf("shop", "s", 80, fmt.Sprintf("10.1.0.%d", i+1)).Endpoints[0]
			if z != "" {
				e.Hints = &standin.Hints{ForZones: []standin.ForZone{{Name: z}}}
			}
			s.Endpoints = append(s.Endpoints, e)
		}
		return s
	}
	for _, test := range []struct {
		zone  string
		slice standin.Slice
		want  string
	}{
		{"a", hinted("a", "b"), "10.1.0.1:80"},
		{"c", hinted("a", "b"), "10.1.0.1:80 10.1.0.2:80"},
		{"a", hinted("a", ""), "10.1.0.1:80 10.1.0.2:80"},
		{"", hinted("a", "b"), "10.1.0.1:80 10.1.0.2:80"},
	} {
		if list, err := ofSlices(t, test.zone, test.slice); drawn(list) != test.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", test.zone, drawn(list), err, test.want)
		}
	}
}

func TestPortsAreFoundByNameOrNumber(t *testing.T) {
	ports := []kubePort{{"http", "TCP", 8080}, {"metrics", "", 9090}, {"dns", "UDP", 53}, {"any", "TCP", 0}}
	for wanted, want := range map[string]int{"http": 8080, "metrics": 9090, "9090": 9090, "dns": 0, "": 0, "80": 0, "any": 0} {
		s := slice{Ports: ports}
		if got, err := s.port(wanted); got != want || (err == nil) != (want != 0) {
			t.Errorf("%s: %d, %v", wanted, got, err)
		}
	}
	one := slice{Ports: []kubePort{{"", "TCP", 80}, {"dns", "UDP", 53}}}
	if got, err := one.port(""); got != 80 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	wrong := standin.SliceOf("shop", "wrong", 80, "10.1.0.9")
	wrong.Ports[0].Name = "grpc"
	list, err := ofSlices(t, "", wrong, standin.SliceOf("shop", "right", 80, "10.1.0.1"))
	if drawn(list) != "10.1.0.1:80" || err == nil || err.Error() != "EndpointSlice wrong: it has no TCP port http, but grpc:80" {
		t.Errorf("%v, %v", list, err)
	}
}

// Whatever happens to slices, and however often a watch is begun anew: what follows is the same as from a list of now.
func TestAWatchLeadsWhereAListLeads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := ofKube("http://127.0.0.1:1", nil)
		now := map[string]slice{}
		for i := range rapid.IntRange(1, 30).Draw(t, "changes") {
			name := rapid.StringMatching("[a-d]").Draw(t, "name")
			s := slice{Kind: "EndpointSlice", AddressType: "IPv4", Ports: []kubePort{{"", "TCP", 80}}}
			s.Metadata = metadata{Name: name, ResourceVersion: fmt.Sprint(i + 1)}
			for _, n := range rapid.SliceOfN(rapid.IntRange(1, 9), 0, 4).Draw(t, "endpoints") {
				s.Endpoints = append(s.Endpoints, kubeEndpoint{Addresses: []string{fmt.Sprintf("10.0.0.%d", n)}})
			}
			kind := rapid.SampledFrom([]string{"ADDED", "MODIFIED", "DELETED", "BOOKMARK"}).Draw(t, "kind")
			switch kind {
			case "ADDED", "MODIFIED":
				now[name] = s
			case "DELETED":
				delete(now, name)
			}
			object, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.take([]byte(`{"type":"` + kind + `","object":` + string(object) + `}`)); err != nil {
				t.Fatal(err)
			}
			fresh := ofKube("http://127.0.0.1:1", nil)
			fresh.slices = now
			want, _ := fresh.targets()
			if got, _ := k.targets(); !reflect.DeepEqual(got, want) || k.version != fmt.Sprint(i+1) {
				t.Fatalf("%v at %s, want %v", got, k.version, want)
			}
		}
	})
}

func FuzzKubernetes(f *testing.F) {
	text, err := json.Marshal(standin.SliceOf("shop", "s", 80, "10.1.0.1"))
	if err != nil {
		f.Fatal(err)
	}
	object := strings.Replace(string(text), `"resourceVersion":""`, `"resourceVersion":"7"`, 1)
	f.Add([]byte(`{"type":"ADDED","object":`+object+"}"), "http", "a")
	f.Add([]byte(`{"type":"BOOKMARK","object":{"kind":"EndpointSlice","metadata":{"resourceVersion":"9"},"endpoints":null}}`), "", "")
	f.Add([]byte(`{"type":"ERROR","object":{"kind":"Status","code":410}}`), "80", "")
	f.Fuzz(func(t *testing.T, line []byte, port, zone string) {
		k := ofKube("http://127.0.0.1:1", func(m *model.DiscoverKube) { m.Port, m.ForZone = port, zone })
		if changed, err := k.take(line); changed && err != nil {
			t.Error("both a change and none")
		}
		list, _ := k.targets()
		for _, target := range list {
			if err := target.check(); err != nil {
				t.Error(err)
			}
		}
		if len(list) > 0 && !hasUsable(list) {
			t.Error("all of them drain")
		}
	})
}
