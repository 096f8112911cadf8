package discover

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/internal/secret"
)

const instances = `[{"Node": {"Address": "10.0.0.1", "Meta": {"zone": "x"}}, 
 "Service": {"Address": "", "Port": 80, "Weights": {"Passing": 5}}},
{"Node": {"Address": "10.0.0.1"}, "Service": {"Address": "10.0.0.2", "Port": 81, "Locality": {"Zone": "y"}}}]`

func TestConsulIsAskedByBlockingQueries(t *testing.T) {
	t.Parallel()
	queries := make(chan *http.Request, 10)
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		queries <- r
		switch r.URL.Query().Get("index") {
		case "":
			w.Header().Set("X-Consul-Index", "7")
			fmt.Fprint(w, instances)
		case "7":
			w.Header().Set("X-Consul-Index", "8")
			fmt.Fprint(w, "[]")
		default:
			<-r.Context().Done() // nothing new
		}
	}))
	defer agent.Close()
	c := newConsul(model.DiscoverConsul{Address: agent.URL + "/", Service: "shop", Tag: "v1", Datacenter: "dc1", Token: secret.New("s3cret")})
	ctx, stop := context.WithCancel(t.Context())
	ended, answers := make(chan struct{}), make(chan []Target, 10)
	go func() {
		defer close(ended)
		c.Watch(ctx, func(list []Target, err error) {
			if err != nil {
				t.Error(err)
			}
			answers <- list
		})
	}()
	want := []Target{{Address: "10.0.0.1:80", Weight: 5, Zone: "x"}, {Address: "10.0.0.2:81", Weight: 1, Zone: "y"}}
	if got := <-answers; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := <-answers; len(got) != 0 {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{
		"dc=dc1&passing=1&tag=v1", "dc=dc1&index=7&passing=1&tag=v1&wait=300s", "dc=dc1&index=8&passing=1&tag=v1&wait=300s",
	} {
		r := <-queries
		if r.URL.Path != "/v1/health/service/shop" || r.URL.RawQuery != want || r.Header.Get("X-Consul-Token") != "s3cret" {
			t.Errorf("%s, want %s", r.URL, want)
		}
	}
	stop()
	<-ended
}

func TestAnswersOfConsulThatAreNone(t *testing.T) {
	for _, test := range []struct {
		status       int
		index, body  string
		want, absent string
	}{
		{403, "1", "", "the token may not read service shop", "s3cret"},
		{500, "1", "", "answers 500", "s3cret"},
		{302, "1", "", "answers 302", "s3cret"},
		{200, "", "[]", "no X-Consul-Index", "s3cret"},
		{200, "1", "{", "not a list of instances", "s3cret"},
	} {
		agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Consul-Index", test.index)
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(test.status)
			fmt.Fprint(w, test.body)
		}))
		c := newConsul(model.DiscoverConsul{Address: agent.URL, Service: "shop", Token: secret.New("s3cret")})
		_, _, err := c.ask(t.Context(), 0)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), test.absent) {
			t.Errorf("%d %q: %v", test.status, test.body, err)
		}
		c.client.CloseIdleConnections()
		agent.Close()
	}
}

func TestInstancesSayTheirPriority(t *testing.T) {
	const all = `[{"Node": {"Address": "10.0.0.1"}, "Service": {"Port": 80, "Meta": {"priority": "1"}, "Tags": ["priority=3"]}},
{"Node": {"Address": "10.0.0.2"}, "Service": {"Port": 80, "Tags": ["v1", "priority=2"]}},
{"Node": {"Address": "10.0.0.3", "Meta": {"priority": "4"}}, "Service": {"Port": 80}},
{"Node": {"Address": "10.0.0.4"}, "Service": {"Port": 80}},
{"Node": {"Address": "10.0.0.5"}, "Service": {"Port": 80, "Meta": {"priority": "first"}}},
{"Node": {"Address": "10.0.0.6"}, "Service": {"Port": 0}}]`
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", "1")
		fmt.Fprint(w, all)
	}))
	defer agent.Close()
	c := newConsul(model.DiscoverConsul{Address: agent.URL, Service: "shop"})
	defer c.client.CloseIdleConnections()
	list, _, err := c.ask(t.Context(), 0)
	var got []int
	for _, target := range list {
		got = append(got, target.Priority)
	}
	if !reflect.DeepEqual(got, []int{1, 2, 4, 0}) {
		t.Errorf("%v", got)
	}
	const want = `10.0.0.5:80 has the priority "first"; write a whole number from 0 to 65535; "10.0.0.6:0" is not host:port, ` +
		`such as 10.0.0.4:9000`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestAnAgentThatStartsAnewIsAskedFromTheBeginning(t *testing.T) {
	t.Parallel()
	indexes, asked := []string{"9", "3", "4"}, make(chan string, 10)
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query().Get("index")
		if len(indexes) == 0 {
			<-r.Context().Done()
			return
		}
		w.Header().Set("X-Consul-Index", indexes[0])
		indexes = indexes[1:]
		fmt.Fprint(w, instances)
	}))
	defer agent.Close()
	c := newConsul(model.DiscoverConsul{Address: agent.URL, Service: "shop"})
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	ended := make(chan struct{})
	go func() { defer close(ended); c.Watch(ctx, func([]Target, error) {}) }()
	for _, want := range []string{"", "9", "", "4"} {
		if got := <-asked; got != want {
			t.Errorf("asked from %q, want %q", got, want)
		}
	}
	stop()
	<-ended
}
