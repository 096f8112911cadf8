// Package policy is the contract between a policy and everything else. A policy is a folder under policies/ with one
// Spec in it and one line in policies/catalog.go.
package policy

import (
	"context"
	"io"

	"headgate/gateway/exchange"
	"headgate/internal/size"
)

// Hooks is all that a policy can do to an exchange. A nil hook costs nothing: it is left out of the route's chain.
// One Hooks value serves every request of a route at once, so it is immutable.
type Hooks struct {
	Strip        func(*exchange.Exchange)                      // drops what no client may say, before any step; when: and groups do not matter
	Request      Step                                          // the head is complete; no upstream is chosen yet
	RequestBody  func(*exchange.Exchange, io.Reader) io.Reader // wraps the stream on its way to the upstream
	Response     Step                                          // the answer's head is here; the client has seen nothing
	ResponseBody func(*exchange.Exchange, io.Reader) io.Reader // wraps the stream on its way to the client
	Done         func(*exchange.Exchange)                      // exactly once, however it ended; must not block
	Close        func() error                                  // this snapshot has drained
	BufferLimit  size.Bytes                                    // > 0: hold the request body, up to this, before Request runs
}

// Step is one decision. Now must not block: no I/O, no sleep, no contended lock. If it cannot decide without waiting it
// returns Wait, and the engine calls Later under the exchange's deadline. Only Later is given a context: the signature
// says who may block. Most policies have a Now alone.
type Step struct {
	Now   func(*exchange.Exchange) Verdict
	Later func(context.Context, *exchange.Exchange) Verdict
}

// Verdict is what a step decided.
type Verdict struct {
	outcome outcome
	err     error
}

type outcome uint8

const (
	goOn outcome = iota
	wait
	answered
	failed
)

// The verdicts without a reason.
var (
	Continue = Verdict{outcome: goOn}     // let the exchange go on
	Wait     = Verdict{outcome: wait}     // from Now only: ask Later
	Answered = Verdict{outcome: answered} // the exchange's Reply has been filled; it ends the chain
)

// Fail says that the policy itself broke: its store is down, its keys will not load. What follows is the operator's
// choice (on_error). When it is to refuse, the caller gets the code of an *exchange.Error in err, else policy_unavailable.
func Fail(err error) Verdict { return Verdict{outcome: failed, err: err} }

// Refuse fills the reply with a problem of the given code and ends the chain. Detail is for the caller and may be
// empty; more header fields can be added to x.Reply.Header before returning it.
func Refuse(x *exchange.Exchange, code exchange.Code, detail string) Verdict {
	x.Problem(code, detail)
	x.Err = &exchange.Error{Code: code, Source: exchange.FromClient, Detail: detail}
	return Answered
}

// Continues reports whether the verdict lets the exchange go on.
func (v Verdict) Continues() bool { return v.outcome == goOn }

// Waits reports whether Later must be asked.
func (v Verdict) Waits() bool { return v.outcome == wait }

// Answers reports whether the reply has been filled.
func (v Verdict) Answers() bool { return v.outcome == answered }

// Err returns why the policy broke, or nil.
func (v Verdict) Err() error { return v.err }

// Stage is where in the chain a policy stands. Stages run in this order; inside one, the order of the document holds.
type Stage uint8

// The stages.
const (
	Admit     Stage = iota // may this connection talk to us at all: ip-filter, cors
	Identify               // who is it: api-key, basic-auth, jwt
	Authorize              // may they: acl
	Limit                  // how often, how many: rate-limit, concurrency
	Validate               // what is in their hands: body-limit, schemas
	Shape                  // headers, rewrite, compress
	Cache                  // answer from memory
	stages
)

var stageNames = [stages]string{"admit", "identify", "authorize", "limit", "validate", "shape", "cache"}

// String returns the stage as written in documents.
func (s Stage) String() string { return stageNames[s] }

// ParseStage reads a stage as written in documents.
func ParseStage(name string) (Stage, bool) {
	for i, n := range stageNames {
		if n == name {
			return Stage(i), true
		}
	}
	return 0, false
}
