package dashboard

import (
	"net/http"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// page serves the interface, from memory only. A path that is neither of the
// API nor a file is a page, which the interface shows itself.
func (s *Server) page(c *fiber.Ctx) error {
	path := c.Path()
	if top, _, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(path, "/")), "/"); top == "api" || top == "ws" {
		return problem(http.StatusNotFound, "not-found", "there is nothing at this path")
	}
	a := s.o.Pages.Answer(path, c.Get(fiber.HeaderAcceptEncoding))
	if a.Part {
		// Forty parts of a page with a kilobyte of headers each would weigh as
		// much as the parts. What guards a part stays: its type and its origin.
		for _, name := range documentHeaders() {
			c.Response().Header.Del(name)
		}
	}
	c.Set(fiber.HeaderContentType, a.Type)
	c.Set(fiber.HeaderCacheControl, a.Cache)
	c.Vary(fiber.HeaderAcceptEncoding)
	if a.Encoding != "" {
		c.Set(fiber.HeaderContentEncoding, a.Encoding)
	}
	if a.Tag != "" {
		c.Set(fiber.HeaderETag, a.Tag)
		if c.Get(fiber.HeaderIfNoneMatch) == a.Tag {
			return c.SendStatus(http.StatusNotModified)
		}
	}
	c.Status(a.Status)
	c.Context().Response.SetBodyRaw(a.Body)
	return nil
}

// documentHeaders are those of a whole page (or worker), which say nothing
// about its parts.
func documentHeaders() []string {
	return []string{"Content-Security-Policy", "Strict-Transport-Security", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Permissions-Policy", "X-Frame-Options", "X-Request-Id"}
}

// pageOr serves a page at a path that a program reads something else from:
// /metrics is the page of path metrics for a person, and what Prometheus
// scrapes. A browser that opens a page asks for HTML; a scraper does not, and
// who sends a token is a program.
func (s *Server) pageOr(c *fiber.Ctx) error {
	c.Vary(fiber.HeaderAccept)
	if strings.Contains(c.Get(fiber.HeaderAccept), "text/html") && c.Get(fiber.HeaderAuthorization) == "" {
		return s.page(c)
	}
	return c.Next()
}
