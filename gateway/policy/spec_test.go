package policy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"headgate/config/decode"
	"headgate/gateway/policy"
)

type options struct {
	Limit  int           `yaml:"limit" min:"1" max:"10" doc:"How many."`
	Window time.Duration `yaml:"window" doc:"In what time."`
}

func kind() policy.Kind {
	return policy.New(policy.Spec[options]{
		Name: "sample", Summary: "A sample.", Stage: policy.Limit,
		Default: func() options { return options{Limit: 5, Window: time.Minute} },
		Check: func(o options) error {
			if o.Window > time.Hour {
				return decode.At("window", "at most 1h")
			}
			return nil
		},
		Build: func(o options, _ policy.Env) (policy.Hooks, error) {
			if o.Limit == 7 {
				return policy.Hooks{}, errors.New("seven cannot be wired")
			}
			return policy.Hooks{BufferLimit: 1}, nil
		},
	})
}

func TestAKindBuildsFromItsOptionsOrSaysWhatIsWrongAndWhere(t *testing.T) {
	for _, test := range []struct{ options, want string }{
		{"", ""},
		{"{limit: 3, window: 10s}", ""},
		{"{limt: 3}", "limt"},
		{"{limit: 11}", "limit"},
		{"{window: 2h}", "at most 1h"},
		{"{limit: 7}", "seven cannot be wired"},
	} {
		t.Run(test.options, func(t *testing.T) {
			var node *yaml.Node
			if test.options != "" {
				node = new(yaml.Node)
				if err := yaml.Unmarshal([]byte(test.options), node); err != nil {
					t.Fatal(err)
				}
			}
			hooks, problems := kind().Build(node, policy.Env{})
			if test.want == "" {
				if len(problems) > 0 || hooks.BufferLimit != 1 {
					t.Errorf("%v", problems)
				}
				return
			}
			if len(problems) != 1 || !strings.Contains(problems.Error(), test.want) {
				t.Errorf("%v, want one problem with %q", problems, test.want)
			}
		})
	}
}

func TestAKindIsKnownWithoutItsOptions(t *testing.T) {
	i := kind().Info
	if i.Name != "sample" || i.Stage != policy.Limit || i.Config.Name() != "options" || i.Default != (options{5, time.Minute}) {
		t.Errorf("%+v", i)
	}
}
