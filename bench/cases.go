package main

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"headgate/bench/load"
	"headgate/bench/payload"
	"headgate/bench/peers"
)

const (
	files     = 65536 // open files that we ask for
	consumers = 100   // of S2, and different tokens of S5
	openRate  = 2000  // requests per second of S1r and of the reloads
)

// task is one case: what is sent, what must come back, and what the gateway has to do for it.
type task struct {
	id, title   string
	connections int
	rate        int
	expect      load.Expect
	shape       func(*peers.Settings) error // adds to the settings what the case asks of the gateway
	requests    func(*peers.Settings) ([][]byte, error)
	special     func(*bench, task, peers.Kind) (sample, error) // of S8, which is no throughput
	columns     []metric                                       // of such a case
	together    bool                                           // such a case, in which the contestants run side by side

	encrypted bool                                               // the public listener
	origin    string                                             // kind of upstream; "": the one that speaks HTTP/1.1
	drive     func(*bench, task, *peers.Gateway) (sample, error) // another load than our own
}

// matches reports whether a name given by the user means this case: its id or its scenario.
func (t task) matches(name string) bool {
	return strings.EqualFold(t.id, name) || strings.EqualFold(t.scenario(), name)
}

func (t task) scenario() string {
	scenario, _, _ := strings.Cut(t.id, "/")
	return scenario
}

func scenarioNames() []string {
	var names []string
	for _, t := range tasks() {
		names = append(names, t.scenario())
	}
	return slices.Compact(names)
}

func caseNames() []string {
	var names []string
	for _, t := range tasks() {
		names = append(names, t.id)
	}
	return names
}

// tasks lists every case, in the order in which they run.
func tasks() []task {
	return slices.Concat(lineTasks(), doorTasks(), surviveTasks(), []task{guardTask()})
}

// lineTasks are those of cleartext HTTP/1.1.
func lineTasks() []task {
	small := load.Expect{Status: 200, Body: payload.Small(), Fields: []load.Field{{Name: "x-origin", Value: "bench"}}}
	big := small
	big.Body = payload.Big()
	guarded := small
	guarded.Fields = append(slices.Clone(small.Fields), load.Field{Name: "x-request-id"})
	plain := func(id, title string, connections, rate int) task {
		return task{id: id, title: title, connections: connections, rate: rate, expect: small, requests: plainRequests}
	}
	return []task{
		plain("S1/1", "GET, 1 connection", 1, 0),
		plain("S1/64", "GET, 64 connections", 64, 0),
		plain("S1/512", "GET, 512 connections", 512, 0),
		plain("S1r", "GET at 2,000 requests/s, open loop", 64, openRate),
		{id: "S2", title: "key, rate limit, JSON log, metrics, request id; 64 connections", connections: 64, expect: guarded,
			shape: guard, requests: keyRequests},
		{id: "S4/get", title: "1 MiB answers, 16 connections", connections: 16, expect: big,
			shape: bodies, requests: bigRequests},
		{id: "S4/post", title: "1 MiB requests, 16 connections", connections: 16, expect: small,
			shape: bodies, requests: postRequests},
		{id: "S5/RS256", title: "100 tokens in turn, RS256, 64 connections", connections: 64, expect: small,
			shape: sign("RS256"), requests: tokenRequests},
		{id: "S5/ES256", title: "100 tokens in turn, ES256, 64 connections", connections: 64, expect: small,
			shape: sign("ES256"), requests: tokenRequests},
		{id: "S6/1000", title: "1,000 routes in turn, 64 connections", connections: 64, expect: small,
			shape: many(1000), requests: routeRequests},
		{id: "S6/50000", title: "50,000 routes in turn, 64 connections", connections: 64, expect: small,
			shape: many(50_000), requests: routeRequests},
		{id: "S8/start", title: "start and memory", expect: small, requests: plainRequests, special: (*bench).startAndMemory,
			columns: startColumns[:]},
		{id: "S8/reload-1", title: "three reloads at 2,000 requests/s, 1 route", connections: 64, rate: openRate, expect: small,
			shape: reloading(1), requests: routeRequests, special: (*bench).reloads, columns: reloadColumns[:]},
		{id: "S8/reload-1000", title: "three reloads at 2,000 requests/s, 1,000 routes", connections: 64, rate: openRate, expect: small,
			shape: reloading(1000), requests: routeRequests, special: (*bench).reloads, columns: reloadColumns[:]},
	}
}

// request is a typical one: eight header fields, about 500 bytes. extra is whole lines, each with its CRLF.
func request(method, target, extra string) []byte {
	return []byte(method + " " + target + " HTTP/1.1\r\n" +
		"Host: shop.example.com\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n" +
		"Accept: application/json, text/plain, */*\r\n" +
		"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\n" +
		"Cache-Control: no-cache\r\n" +
		"Referer: https://shop.example.com/orders?page=2&sort=date\r\n" +
		"Cookie: session=5d41402abc4b2a76b9719d911017c592; theme=dark; consent=yes\r\n" +
		extra + "\r\n")
}

func plainRequests(*peers.Settings) ([][]byte, error) {
	return [][]byte{request("GET", "/api/orders/42?expand=items", "")}, nil
}

func bigRequests(*peers.Settings) ([][]byte, error) {
	return [][]byte{request("GET", "/big", "")}, nil
}

func postRequests(*peers.Settings) ([][]byte, error) {
	head := request("POST", "/api/uploads", "Content-Type: text/plain\r\nContent-Length: "+strconv.Itoa(payload.BigSize)+"\r\n")
	return [][]byte{append(head, payload.Big()...)}, nil
}

func keyRequests(s *peers.Settings) ([][]byte, error) {
	var all [][]byte
	for _, k := range s.Keys {
		all = append(all, request("GET", "/guarded/orders/42?expand=items", "X-Api-Key: "+k.Value+"\r\n"))
	}
	return all, nil
}

func routeRequests(s *peers.Settings) ([][]byte, error) {
	// A prime step visits every route once in a turn, and never two neighbours of a table one after the other.
	const step = 7919
	all := make([][]byte, 0, len(s.Routes))
	for i := range s.Routes {
		all = append(all, request("GET", s.Routes[i*step%len(s.Routes)]+"/items/42?expand=all", ""))
	}
	return all, nil
}

func guard(s *peers.Settings) error {
	for i := range consumers {
		value := fmt.Sprintf("bench-%04d-%x", i, sha256.Sum256([]byte{byte(i)}))[:43]
		s.Keys = append(s.Keys, peers.Key{
			Consumer: fmt.Sprintf("consumer-%04d", i), Value: value, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(value))),
		})
	}
	s.Log = s.Dir + "/access.log"
	return nil
}

func bodies(s *peers.Settings) error {
	s.Bodies = true
	return nil
}

func many(n int) func(*peers.Settings) error {
	return func(s *peers.Settings) error {
		for i := range n {
			s.Routes = append(s.Routes, fmt.Sprintf("/v1/resource-%05d", i))
		}
		return nil
	}
}

func reloading(n int) func(*peers.Settings) error {
	return func(s *peers.Settings) error {
		s.Reloads, s.Generation = true, 1
		return many(n)(s)
	}
}
