package route

import (
	"fmt"
	"testing"

	"headgate/gateway/exchange"
)

// wide has n literal routes under one parent, deep n routes spread over five levels with a template at the end.
func wide(n int) (rules []Rule[int], path string) {
	for i := range n {
		rules = append(rules, Rule[int]{Base: "/shop", Path: fmt.Sprintf("/route-%d", i), Methods: []string{"GET"}, Value: i,
			Name: fmt.Sprint(i)})
	}
	return rules, fmt.Sprintf("/shop/route-%d", n/2)
}

func deep(n int) (rules []Rule[int], path string) {
	at := func(i int) string {
		return fmt.Sprintf("/v1/tenant-%d/area-%d/group-%d/kind-%d", i%11, i/11%13, i/143%17, i/2431)
	}
	for i := range n {
		rules = append(rules, Rule[int]{Base: "/api", Path: at(i) + "/{id}", Methods: []string{"GET"}, Value: i, Name: fmt.Sprint(i)})
	}
	return rules, "/api" + at(n/2) + "/12345"
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1000, 50_000} {
		for name, shape := range map[string]func(int) ([]Rule[int], string){"wide": wide, "deep": deep} {
			rules, path := shape(n)
			table, conflicts := Build(rules)
			if len(conflicts) > 0 {
				b.Fatal(conflicts)
			}
			for _, hosted := range []string{"", "%"} {
				path := path
				if hosted == "%" {
					path += "%20"
				}
				b.Run(fmt.Sprintf("%s-%d%s", name, n, hosted), func(b *testing.B) {
					var h exchange.Header
					params := make([]exchange.Param, 0, 8)
					b.ReportAllocs()
					for b.Loop() {
						table.Match("GET", "api.example.com", path, &h, "", params)
					}
				})
			}
			b.Run(fmt.Sprintf("%s-%d-any", name, n), func(b *testing.B) {
				paths := make([]string, 4096)
				for i := range paths {
					r := rules[(i*7919)%n]
					paths[i] = r.Base + r.Path
				}
				var h exchange.Header
				params := make([]exchange.Param, 0, 8)
				i := 0
				for b.Loop() {
					i++
					table.Match("GET", "api.example.com", paths[i%len(paths)], &h, "", params)
				}
			})
		}
	}
}

func BenchmarkBuild10000(b *testing.B) {
	rules, _ := deep(10_000)
	for b.Loop() {
		if _, conflicts := Build(rules); len(conflicts) > 0 {
			b.Fatal(conflicts)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	rules := []Rule[int]{
		{Path: "/a/{x}/{rest...}", Hosts: []string{"*.example.com"}, Methods: []string{"GET"}, Headers: map[string]string{"x-v": "1"},
			Query: map[string]string{"q": "~[0-9]+"}},
		{Path: "/a/{x}", Value: 1}, {Path: "~/b/[0-9]+", Value: 2}, {Path: "/c", Methods: []string{"PUT"}},
	}
	table, conflicts := Build(rules)
	if len(conflicts) > 0 {
		t.Fatal(conflicts)
	}
	var h exchange.Header
	h.Add("X-V", "1")
	params := make([]exchange.Param, 0, 4)
	for _, path := range []string{"/a/b/c/d", "/a/b", "/b/123", "/c", "/nothing"} {
		if n := testing.AllocsPerRun(100, func() { table.Match("GET", "x.example.com:80", path, &h, "a=1&q=12", params) }); n != 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
	}
}
