package pid1

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"time"
)

// keyPower is KEY_POWER (linux/input-event-codes.h).
const keyPower = 116

// buttons powers the machine off when its button is pressed.
func (s *system) buttons(ctx context.Context) error {
	open := map[string]bool{}
	for {
		files, err := filepath.Glob("/dev/input/event*")
		if err != nil {
			return err
		}
		for _, file := range files {
			if open[file] {
				continue
			}
			f, err := os.Open(file)
			if err != nil {
				continue
			}
			open[file] = true
			stop := context.AfterFunc(ctx, func() { _ = f.Close() })
			go func() {
				defer stop()
				defer func() { _ = f.Close() }()
				s.readButton(f)
			}()
		}
		if !pause(ctx, 2*time.Second) {
			return ctx.Err()
		}
	}
}

func (s *system) readButton(f *os.File) {
	event := make([]byte, 24) // struct input_event of 64-bit machines
	for {
		if _, err := f.Read(event); err != nil {
			return // closed, or unplugged
		}
		if pressed(event) {
			s.log.Info("the power button was pressed")
			s.stop(powerOff)
		}
	}
}

// pressed reports whether an input event is the power button going down.
func pressed(event []byte) bool {
	le := binary.LittleEndian
	return le.Uint16(event[16:]) == 1 && le.Uint16(event[18:]) == keyPower && le.Uint32(event[20:]) == 1
}
