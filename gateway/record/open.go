package record

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"headgate/config/decode"
	"headgate/config/model"
)

// stream is one of the process' own streams, which is never closed.
type stream struct{ file *os.File }

func (s stream) Write(b []byte) (int, error) { return s.file.Write(b) }
func (s stream) Close() error                { return nil }

// open opens the access log's destination for appending. A named pipe that nobody reads is refused rather than waited for.
func open(to string) (io.WriteCloser, error) {
	switch to {
	case "stdout":
		return stream{os.Stdout}, nil
	case "stderr":
		return stream{os.Stderr}, nil
	}
	// Readable by the owner and the group: a log says who was where.
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o640)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, syscall.ENXIO):
		return nil, decode.At("log.access.to", "%q is a pipe that nobody reads; start its reader first", to)
	case errors.Is(err, fs.ErrNotExist):
		return nil, noFolder(to)
	}
	return nil, decode.At("log.access.to", "%q cannot be opened for writing (%w); write stdout, stderr, off, or a file's path", to, err)
}

func noFolder(to string) error {
	return decode.At("log.access.to", "the folder %q does not exist; create it, or write stdout, stderr, off, or another file's path",
		filepath.Dir(to))
}

func checkAccess(a *model.AccessLog) error {
	var errs []error
	switch {
	case a.To == "":
		errs = append(errs, decode.At("log.access.to", "it is empty; write stdout, stderr, off, or a file's path"))
	case a.Buffer < 64<<10:
		errs = append(errs, decode.At("log.access.buffer", "%s is too small; at least 64KiB", a.Buffer))
	case a.Flush <= 0:
		errs = append(errs, decode.At("log.access.flush", "%s is not a time to wait; at least 10ms", a.Flush))
	}
	for i, name := range a.Mask {
		if name == "" {
			errs = append(errs, decode.At(fmt.Sprintf("log.access.mask.%d", i), "it is empty; write a header field's or a query parameter's name"))
		}
	}
	return errors.Join(errs...)
}

func checkTracing(t *model.Tracing) error {
	if t.Endpoint == "" {
		return nil
	}
	var errs []error
	if u, err := url.Parse(t.Endpoint); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		errs = append(errs, decode.At("tracing.endpoint", "%q is not a collector's URL; write one such as http://127.0.0.1:4318", t.Endpoint))
	}
	if !(t.Ratio >= 0 && t.Ratio <= 1) {
		errs = append(errs, decode.At("tracing.ratio", "%v is not a share; write a number from 0 to 1", t.Ratio))
	}
	return errors.Join(errs...)
}
