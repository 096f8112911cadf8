package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"sync"
)

const (
	// maxOrder stops bodies that are no orders.
	maxOrder = 64 << 10
	// maxPlaced bounds what placing orders costs in memory: the oldest placed ones are forgotten.
	maxPlaced = 1000
	// maxLines bounds one order.
	maxLines = 50
	// pageSize is how many a list shows unless asked for less.
	pageSize = 100
)

type product struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Cents int    `json:"price_cents"`
	Stock int    `json:"stock"`
}

type customer struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Email   string `json:"email"`
	Country string `json:"country"`
}

type line struct {
	Product  string `json:"product"`
	Quantity int    `json:"quantity"`
}

type order struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Status   string `json:"status"`
	Lines    []line `json:"lines"`
	Cents    int    `json:"total_cents"`
}

// shop is what the three services share.
type shop struct {
	products  []product
	customers []customer

	mu     sync.RWMutex
	orders []order
	seeded int // how many of the orders were there at the start
	next   int
}

// newShop returns a shop with the same goods, people and orders every time.
func newShop() *shop {
	s := &shop{}
	for i, name := range []string{"Kettle", "Teapot", "Cup", "Saucer", "Spoon", "Tray", "Green tea", "Black tea", "Biscuits", "Honey"} {
		s.products = append(s.products, product{fmt.Sprintf("p-%d", i+1), name, 250 + i*i*75, 5 + (i*37)%60})
	}
	for i, name := range []string{"Ada", "Grace", "Barbara", "Radia", "Frances", "Hedy"} {
		country := []string{"DE", "FR", "IS", "JP"}[i%4]
		s.customers = append(s.customers, customer{fmt.Sprintf("c-%d", i+1), name, fmt.Sprintf("c%d@shop.example", i+1), country})
	}
	for i := range 12 {
		lines := []line{{s.products[i%10].ID, 1 + i%3}, {s.products[(i*3+1)%10].ID, 1}}
		o := order{Customer: s.customers[i%6].ID, Status: []string{"open", "paid", "sent"}[i%3], Lines: lines}
		s.add(o)
	}
	s.seeded = len(s.orders)
	return s
}

// add gives an order its id and its total and keeps it.
func (s *shop) add(o order) order {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	o.ID = fmt.Sprintf("o-%d", s.next)
	for _, l := range o.Lines {
		i := slices.IndexFunc(s.products, func(p product) bool { return p.ID == l.Product })
		o.Cents += s.products[i].Cents * l.Quantity
	}
	if len(s.orders)-s.seeded >= maxPlaced {
		s.orders = slices.Delete(s.orders, s.seeded, s.seeded+1)
	}
	s.orders = append(s.orders, o)
	return o
}

func (s *shop) all() []order {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.orders)
}

// handler returns one service of the shop.
func (s *shop) handler(service string) http.Handler {
	mux := http.NewServeMux()
	switch service {
	case "orders":
		mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
			customer, status := r.URL.Query().Get("customer"), r.URL.Query().Get("status")
			list(w, r, slices.DeleteFunc(s.all(), func(o order) bool {
				return customer != "" && o.Customer != customer || status != "" && o.Status != status
			}))
		})
		mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
			item(w, r, s.all(), func(o order) string { return o.ID })
		})
		mux.HandleFunc("POST /orders", s.place)
	case "customers":
		mux.HandleFunc("GET /customers", func(w http.ResponseWriter, r *http.Request) { list(w, r, s.customers) })
		mux.HandleFunc("GET /customers/{id}", func(w http.ResponseWriter, r *http.Request) {
			item(w, r, s.customers, func(c customer) string { return c.ID })
		})
	case "products":
		mux.HandleFunc("GET /products", func(w http.ResponseWriter, r *http.Request) { list(w, r, s.products) })
		mux.HandleFunc("GET /products/{id}", func(w http.ResponseWriter, r *http.Request) {
			item(w, r, s.products, func(p product) string { return p.ID })
		})
	}
	probes(mux, service)
	return mux
}

// place takes an order, or says everything that is wrong with it.
func (s *shop) place(w http.ResponseWriter, r *http.Request) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		problem(w, http.StatusUnsupportedMediaType, "an order is application/json")
		return
	}
	var o struct {
		Customer string `json:"customer"`
		Lines    []line `json:"lines"`
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o); err != nil {
		if large := new(http.MaxBytesError); errors.As(err, &large) {
			problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("an order has at most %d bytes", maxOrder))
			return
		}
		problem(w, http.StatusBadRequest, "this is no order: "+err.Error())
		return
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		problem(w, http.StatusBadRequest, "something follows the order")
		return
	}
	if wrong := s.faults(o.Customer, o.Lines); len(wrong) > 0 {
		problem(w, http.StatusUnprocessableEntity, wrong...)
		return
	}
	placed := s.add(order{Customer: o.Customer, Status: "open", Lines: o.Lines})
	w.Header().Set("Location", "/orders/"+placed.ID)
	reply(w, http.StatusCreated, placed)
}

// faults lists what is wrong with an order.
func (s *shop) faults(who string, lines []line) (wrong []string) {
	if !slices.ContainsFunc(s.customers, func(c customer) bool { return c.ID == who }) {
		wrong = append(wrong, fmt.Sprintf("customer %q is not known; try c-1", who))
	}
	if len(lines) == 0 || len(lines) > maxLines {
		return append(wrong, fmt.Sprintf("an order has 1 to %d lines, this one has %d", maxLines, len(lines)))
	}
	for i, l := range lines {
		if !slices.ContainsFunc(s.products, func(p product) bool { return p.ID == l.Product }) {
			wrong = append(wrong, fmt.Sprintf("lines[%d]: product %q is not known; try p-1", i, l.Product))
		}
		if l.Quantity < 1 || l.Quantity > 100 {
			wrong = append(wrong, fmt.Sprintf("lines[%d]: quantity is 1 to 100, not %d", i, l.Quantity))
		}
	}
	return wrong
}

// list answers with a page of a list: ?limit= and ?offset=.
func list[T any](w http.ResponseWriter, r *http.Request, all []T) {
	limit, offset := number(r, "limit", pageSize, pageSize), number(r, "offset", 0, len(all))
	page := all[offset:min(offset+limit, len(all))]
	reply(w, http.StatusOK, map[string]any{"items": append([]T{}, page...), "total": len(all)})
}

// item answers with the one that the path names.
func item[T any](w http.ResponseWriter, r *http.Request, all []T, id func(T) string) {
	i := slices.IndexFunc(all, func(v T) bool { return id(v) == r.PathValue("id") })
	if i < 0 {
		problem(w, http.StatusNotFound, fmt.Sprintf("there is no %q here", r.PathValue("id")))
		return
	}
	reply(w, http.StatusOK, all[i])
}

// number reads a query parameter between 0 and most; what is no such number is otherwise.
func number(r *http.Request, name string, otherwise, most int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil || n < 0 {
		n = otherwise
	}
	return min(n, most)
}

func problem(w http.ResponseWriter, status int, details ...string) {
	w.Header().Set("Content-Type", "application/problem+json")
	reply(w, status, map[string]any{"title": http.StatusText(status), "status": status, "details": details})
}

func reply(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
