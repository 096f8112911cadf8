// Package policies is the list of the policies that there are. Adding one is a folder here and one line in Catalog.
package policies

import (
	"headgate/gateway/policy"
	"headgate/policies/acl"
	"headgate/policies/apikey"
	"headgate/policies/basicauth"
	"headgate/policies/bodylimit"
	"headgate/policies/compress"
	"headgate/policies/concurrency"
	"headgate/policies/cors"
	"headgate/policies/fault"
	"headgate/policies/headers"
	"headgate/policies/ipfilter"
	"headgate/policies/jwt"
	"headgate/policies/mtls"
	"headgate/policies/ratelimit"
	"headgate/policies/rewrite"
)

// Catalog returns every kind of policy, by stage and name.
func Catalog() []policy.Kind {
	return []policy.Kind{
		cors.Kind,
		ipfilter.Kind,
		apikey.Kind,
		basicauth.Kind,
		jwt.Kind,
		mtls.Kind,
		acl.Kind,
		concurrency.Kind,
		ratelimit.Kind,
		bodylimit.Kind,
		compress.Kind,
		fault.Kind,
		headers.Kind,
		rewrite.Kind,
	}
}
