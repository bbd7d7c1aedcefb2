package tunnel

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// receive is the port's ReceiveFunc. It ends with the Bind only: a socket that
// fails is replaced.
func (p *port) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	r := &p.rx
	for errs := 0; ; {
		if n := r.give(bufs, sizes, eps, &p.u.count); n > 0 {
			return n, nil
		}
		s := p.sock.Load()
		if s == nil {
			if !p.reopen() {
				return 0, net.ErrClosed
			}
			continue
		}
		r.lay(bufs, s)
		err := s.raw.Read(r.read)
		switch {
		case err == nil && r.errno == 0:
			if n := r.split(bufs, sizes, eps, &p.u.count); n > 0 {
				return n, nil
			}
		case err == nil: // a pending error of the socket, such as an ICMP's
			p.u.count.receiveErrors.Add(1)
			if errs++; errs > 16 && !p.pause() {
				return 0, net.ErrClosed
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			if s.stale() || s.rearm() != nil {
				p.drop(s)
			}
		default: // closed
			p.drop(s)
		}
		select {
		case <-p.closed:
			return 0, net.ErrClosed
		default:
		}
	}
}

// pause keeps a socket with a lasting error from spinning.
func (p *port) pause() bool {
	timer := time.NewTimer(reopenFirst)
	defer timer.Stop()
	select {
	case <-p.closed:
		return false
	case <-timer.C:
		return true
	}
}
