package dashboard

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"patronus/configs"
	"patronus/dashboard/alert"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

// ChannelBody is what can be written of a channel. Its secret cannot be read
// again; absent, it stays as it is.
type ChannelBody struct {
	configs.AlertChannel
	Secret *string `json:"secret,omitempty"`
}

// Channel is a channel as it is shown.
type Channel struct {
	configs.AlertChannel
	HasSecret bool `json:"has_secret"`
}

// AlertSettings are what channels may reach.
type AlertSettings struct {
	// Private are the private networks that channels may be in.
	Private []netip.Prefix `json:"private_networks"`
}

func alertChannelRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/alerts/channels", Name: "listAlertChannels", Access: fabric(auth.ViewConfig), Status: 200,
			Doc: "List the ways by which people are called.", Answer: Page[Channel]{}, handle: (*Server).listChannels,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/alerts/channels", Name: "createAlertChannel", Access: fabric(auth.ManageAlerts), Status: 202, Create: true,
			Doc: "Add a channel.", Body: ChannelBody{}, Answer: Accepted{}, handle: func(s *Server, r *request) error { return s.writeChannel(r, "") },
		},
		{
			Method: http.MethodPut, Path: "/api/v1/alerts/channels/:id", Name: "updateAlertChannel", Access: fabric(auth.ManageAlerts), Status: 202,
			Doc: "Replace a channel.", Body: ChannelBody{}, Answer: Accepted{}, handle: func(s *Server, r *request) error { return s.writeChannel(r, r.Params("id")) },
		},
		{
			Method: http.MethodDelete, Path: "/api/v1/alerts/channels/:id", Name: "deleteAlertChannel", Access: fabric(auth.DeleteConfig), Status: 202,
			Doc: "Remove a channel and its secret.", Answer: Accepted{}, handle: (*Server).deleteChannel,
		},
		{
			Method: http.MethodPost, Path: "/api/v1/alerts/channels/:id/test", Name: "testAlertChannel", Access: fabric(auth.ManageAlerts), Status: 200,
			Doc: "Send a made-up alert through a channel, now.", Answer: alert.Message{}, handle: (*Server).testChannel,
		},
		{
			Method: http.MethodGet, Path: "/api/v1/alerts/settings", Name: "showAlertSettings", Access: fabric(auth.ViewConfig), Status: 200,
			Doc: "Show which private networks channels may be in.", Answer: AlertSettings{}, handle: (*Server).showAlertSettings,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/alerts/settings", Name: "updateAlertSettings", Access: fabric(auth.ManageNodes), Status: 202,
			Doc: "Say which private networks channels may be in.", Body: AlertSettings{}, Answer: Accepted{}, handle: (*Server).updateAlertSettings,
		},
	}
}

func channelAt(list []configs.AlertChannel, name string) int {
	return slices.IndexFunc(list, func(c configs.AlertChannel) bool { return c.Name == name })
}

func showChannel(name string) func(*configs.Network) any {
	return func(n *configs.Network) any {
		if at := channelAt(n.Alerting().Channels, name); at >= 0 {
			return n.Alerting().Channels[at]
		}
		return nil
	}
}

func (s *Server) listChannels(r *request) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	var list []Channel
	for _, c := range s.o.Plane.Current().Network.Alerting().Channels {
		list = append(list, Channel{AlertChannel: c, HasSecret: s.o.Alerts.HasSecret(c.Name)})
	}
	return firsts(r, list)
}

// writeChannel adds a channel, or replaces one. A channel that sends somewhere
// else needs its secret again: it is not given to a place that somebody else
// chose.
func (s *Server) writeChannel(r *request, name string) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	var b ChannelBody
	if err := r.body(&b); err != nil {
		return err
	}
	action := "create_alert_channel"
	if name != "" {
		action = "update_alert_channel"
		if b.Name != "" && b.Name != name {
			return invalid("name", "a channel keeps its name")
		}
		b.Name = name
	}
	if b.Secret != nil && len(*b.Secret) > 4000 {
		return invalid("secret", "is longer than 4000 bytes")
	}
	forget := false
	a, err := s.change(r, control.Change{
		Action: action, Kind: "alert_channel", ID: b.Name, Show: showChannel(b.Name),
		Edit: func(n *configs.Network) error {
			list := alerting(n).Channels
			at := channelAt(list, b.Name)
			switch {
			case name == "" && at >= 0:
				return problem(http.StatusConflict, "exists", fmt.Sprintf("there is a channel %q already", b.Name))
			case name != "" && at < 0:
				return notFound("channel", name)
			case at < 0:
				n.Alerts.Channels = append(list, b.AlertChannel)
				return nil
			}
			old := list[at]
			forget = old.Kind != b.Kind || old.Server != b.Server || old.URL != b.URL || old.Authority != b.Authority
			list[at] = b.AlertChannel
			return nil
		},
	})
	if err != nil {
		return err
	}
	switch {
	case a.DryRun:
	case b.Secret != nil:
		err = s.o.Alerts.SetSecret(r.UserContext(), b.Name, *b.Secret)
		err = s.audit(r, "set_alert_secret", "alert_channel", b.Name, nil, nil, err)
	case forget:
		err = s.o.Alerts.SetSecret(r.UserContext(), b.Name, "")
	}
	if err != nil {
		return err
	}
	return r.accepted(a, "")
}

func (s *Server) deleteChannel(r *request) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	name := r.Params("id")
	a, err := s.change(r, control.Change{
		Action: "delete_alert_channel", Kind: "alert_channel", ID: name, Show: showChannel(name),
		Edit: func(n *configs.Network) error {
			at := channelAt(alerting(n).Channels, name)
			if at < 0 {
				return notFound("channel", name)
			}
			n.Alerts.Channels = slices.Delete(n.Alerts.Channels, at, at+1)
			return nil
		},
	})
	if err != nil {
		return err
	}
	if !a.DryRun {
		if err := s.o.Alerts.SetSecret(r.UserContext(), name, ""); err != nil {
			return err
		}
	}
	return r.accepted(a, "")
}

func (s *Server) testChannel(r *request) error {
	if s.o.Alerts == nil {
		return ErrUnavailable
	}
	m, err := s.o.Alerts.Test(r.UserContext(), r.Params("id"))
	if err := s.audit(r, "test_alert_channel", "alert_channel", r.Params("id"), nil, nil, err); err != nil {
		return err
	}
	return r.answer(http.StatusOK, m)
}

func (s *Server) showAlertSettings(r *request) error {
	return r.answer(http.StatusOK, AlertSettings{Private: append([]netip.Prefix{}, s.o.Plane.Current().Network.Alerting().Private...)})
}

func (s *Server) updateAlertSettings(r *request) error {
	var b AlertSettings
	if err := r.body(&b); err != nil {
		return err
	}
	return s.commit(r, control.Change{
		Action: "update_alert_settings", Kind: "alert_settings",
		Show: func(n *configs.Network) any { return n.Alerting().Private },
		Edit: func(n *configs.Network) error {
			alerting(n).Private = b.Private
			return nil
		},
	}, "")
}
