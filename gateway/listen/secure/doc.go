// Package secure is how a listener is encrypted: which certificate a client is shown, by which rules the two agree, what
// is learned of the client's own certificate, and the handshake itself.
//
// A Keeper holds what outlives a reload: certificates from files, which it watches, and the keys of session tickets. From
// each listener's part of a document it compiles Terms, which greet connections until a newer document replaces them.
package secure
