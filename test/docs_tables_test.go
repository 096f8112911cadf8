package test

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"headgate/config/model"
	"headgate/internal/size"
)

func readPage(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPageTellsEveryLimitOfAListener holds the table of limits against the model and its defaults.
func TestPageTellsEveryLimitOfAListener(t *testing.T) {
	_, section, _ := strings.Cut(readPage(t, "../docs/operating.md"), "## Limits")
	told := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(section, -1) {
		told[row[1]] = row[2]
	}
	var limits model.ListenerLimits
	limits.SetDefaults()
	v := reflect.ValueOf(limits)
	for i := range v.NumField() {
		name, want := v.Type().Field(i).Tag.Get("yaml"), "none"
		if !v.Field(i).IsZero() {
			switch value := v.Field(i).Interface().(type) {
			case time.Duration:
				want = strings.TrimSuffix(value.String(), "m0s")
			case size.Bytes:
				want = value.String()
			default:
				want = fmt.Sprint(value)
			}
		}
		if got, ok := told[name]; !ok || got != want && !strings.HasPrefix(got, want+" ") {
			t.Errorf("operating.md says that the default of %s is %q; it is %s", name, got, want)
		}
		delete(told, name)
	}
	for name := range told {
		t.Errorf("operating.md tells of a limit %s that there is not", name)
	}
}
