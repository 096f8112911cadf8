package grpc

import (
	"headgate/gateway/exchange"
)

// Status is a gRPC status code (doc/statuscodes.md).
type Status uint8

// The status codes.
const (
	OK Status = iota
	Cancelled
	Unknown
	InvalidArgument
	DeadlineExceeded
	NotFound
	AlreadyExists
	PermissionDenied
	ResourceExhausted
	FailedPrecondition
	Aborted
	OutOfRange
	Unimplemented
	Internal
	Unavailable
	DataLoss
	Unauthenticated
)

// connectNames are the same codes as Connect spells them.
var connectNames = [...]string{
	"", "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists", "permission_denied",
	"resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented", "internal", "unavailable", "data_loss",
	"unauthenticated",
}

// ofProblem is the status of a reply of the gateway's own. Its codes know more than a bare HTTP status:
// http-grpc-status-mapping.md says of itself that it is for clients that meet a reply without grpc-status, and that servers
// must not choose by it. So a limit is RESOURCE_EXHAUSTED here, which a client does not retry by itself, while the 429 of a
// proxy behind us stays UNAVAILABLE.
func ofProblem(code string, status int) Status {
	switch code {
	case exchange.BadRequest.Name, exchange.PlainHTTP.Name: // not the caller's argument: its client library's doing
		return Internal
	case exchange.UpstreamInvalid.Name, exchange.LoopDetected.Name: // would come out the same another time
		return Internal
	case exchange.Misdirected.Name: // right on another connection
		return Unavailable
	}
	return ofOwnStatus(status)
}

// ofOwnStatus is the status of a reply that the gateway or one of its policies made.
func ofOwnStatus(status int) Status {
	switch status {
	case 400, 406, 411, 415, 422:
		return InvalidArgument
	case 401, 407:
		return Unauthenticated
	case 402, 403, 451:
		return PermissionDenied
	case 404, 405, 501: // of a method, since that is what a path is
		return Unimplemented
	case 409:
		return Aborted
	case 412, 428:
		return FailedPrecondition
	case 408, 504:
		return DeadlineExceeded
	case 413, 414, 429, 431, 507:
		return ResourceExhausted
	case 416:
		return OutOfRange
	case 499:
		return Cancelled
	case 502, 503:
		return Unavailable
	case 417, 500, 505, 508:
		return Internal
	}
	return Unknown
}

// ofForeignStatus is the status of a reply that is not gRPC although a call was asked, such as the page of a proxy behind
// us: the table of http-grpc-status-mapping.md.
func ofForeignStatus(status int) Status {
	switch status {
	case 400:
		return Internal
	case 401:
		return Unauthenticated
	case 403:
		return PermissionDenied
	case 404:
		return Unimplemented
	case 429, 502, 503, 504:
		return Unavailable
	}
	return Unknown
}

// parseStatus reads a grpc-status. A number that no code has is UNKNOWN (statuscodes.md).
func parseStatus(s string) (Status, bool) {
	n, ok := digits(s, 3)
	switch {
	case !ok:
		return Unknown, s != ""
	case n > int64(Unauthenticated):
		return Unknown, true
	}
	return Status(n), true
}
