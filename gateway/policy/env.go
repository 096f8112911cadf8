package policy

import (
	"log/slog"
	"net/http"

	"headgate/gateway/exchange"
	"headgate/internal/clock"
	"headgate/internal/counter"
	"headgate/internal/metric"
)

// Env hands a policy everything that is not its own. Nothing is global.
type Env struct {
	Instance  string       // where this policy stands, such as apis/shop/policies/rate-limit; the same after a reload
	Log       *slog.Logger // already names the instance
	Clock     clock.Clock  // for what is not about one request; a request's "now" is Exchange.Start
	Metrics   *metric.Registry
	Labels    []metric.Label // api, policy: put them first on every series
	Counters  counter.Store  // limits; shared by the nodes where the document says so
	Consumers Consumers      // who is known
	HTTP      *http.Client   // calls to identity providers and the like
	Expr      Compiler       // expressions and templates
	Keep      *Lease         // see Keep
	Slots     *Slots         // see Slot
	Random    func() uint64  // spread evenly; safe for concurrent use, and not for secrets
	Shadow    bool           // it is only rehearsed: nobody must be made to wait on purpose
}

// Consumers finds known callers. It follows reloads: a consumer that was added is found without rebuilding a policy.
type Consumers interface {
	// ByKey returns the consumer that owns the API key with this SHA-256, or nil.
	ByKey(sum [32]byte) *exchange.Consumer
	// ByPassword returns the consumer with this user name and password, or nil. It may take as long as bcrypt does,
	// unless the pair was verified lately; ready is false when only the slow way is left, which slow allows.
	ByPassword(username, password string, slow bool) (c *exchange.Consumer, ready bool)
	// BySubject returns the consumer that claims this token subject, or nil.
	BySubject(subject string) *exchange.Consumer
	// ByCertificate returns the consumer that is known by this property of a verified certificate, or nil. The kind is
	// thumbprint (SHA-256, base64url), subject (RFC 2253), dns (lower case), uri or email (lower case).
	ByCertificate(kind, value string) *exchange.Consumer
	// Generation changes with every reload that changed the consumers, so that results may be remembered.
	Generation() uint64
}

// Compiler compiles expressions (CEL; plain ones such as consumer, client.ip or header.x-tenant == "a" skip it) and
// templates (text with {expression} in it; {{ and }} are braces). What can be said and when it is evaluated: see
// gateway/expr. Errors name the place inside the expression.
type Compiler interface {
	// Bool compiles a condition. Its error, at evaluation, says that there is no answer (a claim of another type than
	// expected, more to look at than allowed): whoever guards with a condition must take that for "guard".
	Bool(src string) (func(*exchange.Exchange) (bool, error), error)
	// String compiles an expression to text. Where there is no answer the text is "", which is counted.
	String(src string) (func(*exchange.Exchange) string, error)
	// Template compiles text with expressions in it. Each expression's text goes through every escape in turn (such as
	// url.PathEscape for a path); what stands outside the braces does not.
	Template(src string, escape ...func(string) string) (func(*exchange.Exchange) string, error)
}

// Slots counts the slots of one snapshot's exchanges.
type Slots struct{ n int }

// NewSlots continues counting behind slots that others have: those of the policies in front of this route's own.
func NewSlots(used int) *Slots { return &Slots{used} }

// Len returns how many slots were handed out.
func (s *Slots) Len() int { return s.n }

// Slot returns typed state on one exchange, without string keys.
func Slot[T any](e Env) exchange.Slot[T] {
	e.Slots.n++
	return exchange.NewSlot[T](e.Slots.n - 1)
}
