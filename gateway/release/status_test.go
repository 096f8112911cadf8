package release

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/gateway/release/sticky"
	"headgate/internal/metric"
)

func TestStatusSaysWhatEachVariantGetsNowAndWhatNext(t *testing.T) {
	s := newSplit(t, "shop", model.Split{Variants: map[string]model.Variant{
		"new": {Upstream: "v2", Weight: 10, Ramp: &model.Ramp{To: 50, Start: noon, Over: 10 * time.Hour}},
		"old": {Upstream: "v1", Weight: 90, Ramp: &model.Ramp{To: 30, Start: noon, Over: time.Hour}},
	}})
	for _, tt := range []struct {
		at  time.Duration
		new string
		old string
	}{
		{-time.Minute,
			"10 0.10 0.00 at 2026-11-21T12:00:00Z it begins to go from 10 to 50, which it is at 2026-11-21T22:00:00Z",
			"90 0.90 0.00 at 2026-11-21T12:00:00Z it begins to go from 90 to 30, which it is at 2026-11-21T13:00:00Z"},
		{30 * time.Minute,
			"12 0.17 0.05 by +4 each hour, to 50 at 2026-11-21T22:00:00Z",
			"60 0.83 0.50 by -1 each minute, to 30 at 2026-11-21T13:00:00Z"},
		{time.Hour,
			"14 0.32 0.10 by +4 each hour, to 50 at 2026-11-21T22:00:00Z",
			"30 0.68 1.00 none: it is 30 since 2026-11-21T13:00:00Z"},
	} {
		st := Front{"shop", s}.Status(noon.Add(tt.at))
		for i, want := range []string{tt.new, tt.old} {
			v := st.Variants[i]
			if got := fmt.Sprintf("%.4g %.2f %.2f %s", v.Weight, v.Share, v.Ramp.Done, v.Ramp.Next); got != want {
				t.Errorf("%s %s: %s\nwant %s", tt.at, v.Name, got, want)
			}
		}
		weights := 0.0
		Front{"shop", s}.Collect(noon.Add(tt.at), func(_, _ string, _ metric.Type, v float64, _ ...metric.Label) { weights += v })
		if want := st.Variants[0].Weight + st.Variants[1].Weight; weights != want {
			t.Errorf("%s: the gauges are %v together, want %v", tt.at, weights, want)
		}
	}
}

func TestStatusCountsWhatVariantsAnswered(t *testing.T) {
	m := model.Split{Header: "X-Variant", Variants: variants("v1=1 v2=0 v3=0")}
	e, _ := newEnv()
	s, err := NewSplit("shop", &m, map[string]Service{"v1": fixed{status: 200}, "v2": fixed{status: 503}, "v3": fixed{}}, e)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"v1", "v1", "v2", "v3"} {
		x := request("GET", "/", nil, 0)
		x.Request.Header.Add("X-Variant", v)
		_, _ = s.Send(x) // that v3 fails is what is counted
	}
	var c model.Sticky
	c.SetDefaults()
	got, err := json.Marshal(Front{"shop", NewPinned(sticky.New("shop", &c), s, e)}.Status(noon))
	const want = `{"name":"shop","cookie":"headgate","variants":[` +
		`{"name":"v1","upstream":"v1","weight":1,"share":1,"requests":2,"answers":{"2xx":2}},` +
		`{"name":"v2","upstream":"v2","weight":0,"share":0,"requests":1,"answers":{"5xx":1}},` +
		`{"name":"v3","upstream":"v3","weight":0,"share":0,"requests":1,"answers":{"none":1}}]}`
	if string(got) != want || err != nil {
		t.Errorf("%s, %v\nwant\n%s", got, err, want)
	}
}

func TestStatusSaysWhatBecomesOfCopies(t *testing.T) {
	asked, release := make(chan bool, 1), make(chan bool)
	s := open(t, says("one"), func(w http.ResponseWriter, r *http.Request) { asked <- true; <-release; says("two")(w, r) },
		func(m *model.Mirror) { compared(nil)(m); m.Limit = 1 })
	look := func() string {
		m := Front{"shop", s.mirror}.Status(noon).Mirror
		return fmt.Sprintf("%s %g %d/%d ", m.Upstream, m.Percent, m.UnderWay, m.Limit) +
			fmt.Sprint(m.Copies, m.LeftOut, m.Compared, m.Differences)
	}
	s.ask(request("GET", "/", nil, 0))
	<-asked
	s.ask(request("GET", "/", nil, 0))
	const begun = "shadow 100 1/1 map[answered:0 failed:0 panic:0 timeout:0] " +
		"map[body_incomplete:0 body_too_large:0 concurrency:1 copy:0 stream:0 upgrade:0] " +
		"map[different:0 not_compared:0 same:0] map[body:0 header:0 status:0]"
	if got := look(); got != begun {
		t.Errorf("%s\nwant\n%s", got, begun)
	}
	release <- true
	s.awaitCount("compared", "result", resultDifferent, 1)
	s.awaitPlaces()
	const over = "shadow 100 0/1 map[answered:1 failed:0 panic:0 timeout:0] " +
		"map[body_incomplete:0 body_too_large:0 concurrency:1 copy:0 stream:0 upgrade:0] " +
		"map[different:1 not_compared:0 same:0] map[body:1 header:0 status:0]"
	if got := look(); got != over {
		t.Errorf("%s\nwant\n%s", got, over)
	}
}
