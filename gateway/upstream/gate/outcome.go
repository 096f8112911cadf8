package gate

import (
	"errors"
	"time"

	"headgate/gateway/exchange"
	"headgate/gateway/upstream/adapt"
)

// health is what an outcome says to the breaker.
type health uint8

const (
	unknown health = iota // nothing
	good
	bad
)

// judge says what an outcome teaches: the limiter about how much is too much, and the breaker about whether the upstream works.
//
//   - Refusals are 429, 503, the gRPC codes RESOURCE_EXHAUSTED and UNAVAILABLE, and connections that have as many requests as
//     they may have; what was too late is 504, and a service that did not answer in the time that the document allows.
//   - Answers of 500 and more are failures, but 501 and 505, which are about the request; so are the gRPC codes UNKNOWN,
//     DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS; and so is no answer.
//   - Clients that go away or send rubbish, or allow less time than the document, and what the gateway did by itself, teach
//     nothing: nobody can make an upstream look ill.
func (g *Gate) judge(x *exchange.Exchange, took time.Duration, err error) (adapt.Outcome, health) {
	if err == nil {
		return answered(x)
	}
	var e *exchange.Error
	switch {
	case !errors.As(err, &e):
		return adapt.Ignored, unknown
	case x.Cancel != nil && x.Cancel.Expired():
		if g.total > 0 && took >= g.total/2 { // most of the document's own time was the upstream's
			return adapt.TimedOut, bad
		}
		return adapt.Ignored, unknown
	case e.Code.Name == exchange.UpstreamTimeout.Name:
		return adapt.TimedOut, bad
	case e.Code.Name == exchange.UpstreamBusy.Name:
		return adapt.Refused, unknown
	case e.Source == exchange.FromUpstream:
		return adapt.Ignored, bad
	}
	return adapt.Ignored, unknown
}

// answered judges the head of an answer.
func answered(x *exchange.Exchange) (adapt.Outcome, health) {
	switch status := x.Reply.Status; {
	case status == 200 && x.Reply.Body.None():
		if code := x.Reply.Header.Get("Grpc-Status"); code != "" && code != "0" {
			return refusedCall(code)
		}
		return adapt.Served, good
	case status == 429:
		return adapt.Refused, good
	case status == 503:
		return adapt.Refused, bad
	case status == 504:
		return adapt.TimedOut, bad
	case status == 501, status == 505:
		return adapt.Ignored, good
	case status >= 500:
		return adapt.Ignored, bad
	}
	return adapt.Served, good
}

// refusedCall judges a gRPC status that stands in the head: the answer has no message.
func refusedCall(code string) (adapt.Outcome, health) {
	switch code {
	case "8": // RESOURCE_EXHAUSTED, often of one caller's quota
		return adapt.Refused, good
	case "14": // UNAVAILABLE
		return adapt.Refused, bad
	case "2", "4", "13", "15": // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, DATA_LOSS
		return adapt.Ignored, bad
	}
	return adapt.Served, good
}
