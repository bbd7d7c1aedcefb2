package dashboard

import (
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// page serves the interface's files, from memory only. A path without a file
// is a page of the interface, which shows it itself.
func (s *Server) page(c *fiber.Ctx) error {
	name := strings.TrimPrefix(c.Path(), "/")
	if strings.HasPrefix(name, "api/") || strings.HasPrefix(name, "ws/") {
		return problem(http.StatusNotFound, "not-found", "there is nothing at this path")
	}
	if name == "" || path.Ext(name) == "" {
		name = "index.html"
	}
	text, err := fs.ReadFile(s.o.Pages, name)
	if err != nil {
		return problem(http.StatusNotFound, "not-found", "there is nothing at this path")
	}
	c.Set(fiber.HeaderContentType, contentType(name))
	c.Set(fiber.HeaderCacheControl, "no-cache")
	return c.Send(text)
}

func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".png":
		return "image/png"
	case ".woff2":
		return "font/woff2"
	case ".json", ".map", ".webmanifest":
		return "application/json"
	}
	return "application/octet-stream"
}
