package dashboard

import (
	"bufio"
	"context"
	"net/http"
	"time"

	"github.com/gofiber/fiber/v2"

	"patronus/dashboard/auth"
)

// Caps of a capture.
const (
	maxCaptureSeconds = 60 // also what the answer's deadline allows
	maxCapturePackets = 100_000
	maxCaptureBytes   = 64 << 20
)

func captureRoutes() []Route {
	return []Route{{
		Method: http.MethodPost, Path: "/api/v1/captures", Name: "capture", Access: needs(auth.CapturePackets), Status: 200,
		Doc: "Capture packets of a site as a stream of pcapng, until a cap is reached.", Body: CaptureOptions{}, handle: (*Server).capture,
	}}
}

func (s *Server) capture(r *request) error {
	if s.o.Captures == nil {
		return ErrUnavailable
	}
	o := CaptureOptions{Point: "lan", Seconds: 10, Packets: 10_000, Bytes: 16 << 20}
	if err := r.body(&o); err != nil {
		return err
	}
	switch {
	case o.Seconds < 1 || o.Seconds > maxCaptureSeconds:
		return invalid("seconds", "is not from 1 to 60")
	case o.Packets < 1 || o.Packets > maxCapturePackets:
		return invalid("packets", "is not from 1 to 100000")
	case o.Bytes < 1 || o.Bytes > maxCaptureBytes:
		return invalid("bytes", "is not from 1 to 67108864")
	case o.SnapSize < 0 || o.SnapSize > 65535:
		return invalid("snap_size", "is not from 0 to 65535")
	case len(o.Filter) > 1000 || plain(o.Filter) != o.Filter:
		return invalid("filter", "has at most 1000 printable characters")
	}
	v, err := s.view(r.UserContext())
	if err != nil {
		return err
	}
	if err := inScope(v, &r.actor, o.Site); err != nil {
		return err
	}
	if !s.tests.enter("capture/" + o.Site) {
		return problem(http.StatusConflict, "busy", "packets of this site are being captured already")
	}
	if err := s.audit(r, "capture_packets", "site", o.Site, nil, o, nil); err != nil {
		s.tests.leave("capture/" + o.Site)
		return err
	}
	r.Set(fiber.HeaderContentType, "application/x-pcapng")
	r.Set(fiber.HeaderContentDisposition, `attachment; filename="`+o.Site+`.pcapng"`)
	actor := r.actor
	r.Context().SetBodyStreamWriter(func(w *bufio.Writer) {
		defer s.tests.leave("capture/" + o.Site)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(o.Seconds+5)*time.Second)
		defer cancel()
		if err := s.o.Captures.Capture(ctx, o, flushing{w}); err != nil {
			s.log.Warn("capture ended early", "site", o.Site, "user", actor.User, "err", err)
		}
	})
	return nil
}

// flushing sends what is written at once, so that a capture can be watched.
type flushing struct{ w *bufio.Writer }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.w.Flush()
	}
	return n, err
}
