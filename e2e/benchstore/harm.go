package benchstore

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"patronus/appliance/store"
)

// smallStore makes the store that is harmed: five sealed hours and an open one,
// as a process that was killed leaves it.
func smallStore(dir string) error {
	work := filepath.Join(dir, "work")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	clock := time.UnixMilli(tortureBase)
	s, err := store.Open(work, store.Options{Keep: tortureKeep, Now: func() time.Time { return clock }})
	if err != nil {
		return err
	}
	var b store.Batch
	for tick := range int64(330) {
		b = tortureBatch(b, tick)
		clock = time.UnixMilli(b.At)
		if err := s.Append(context.Background(), b); err != nil {
			return err
		}
		if tick == 200 { // some of it is in tables
			if err := s.Seal(); err != nil {
				return err
			}
			if err := s.Close(); err != nil {
				return err
			}
			if s, err = store.Open(work, store.Options{Keep: tortureKeep, Now: func() time.Time { return clock }}); err != nil {
				return err
			}
		}
	}
	if err := s.Seal(); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(dir, "image"), os.DirFS(work)); err != nil {
		return err
	}
	return s.Close()
}

// harmPage is the distance of the places at which files are cut.
const harmPage = 4096

// Harm cuts every file of a small store at every page, and flips a bit in every
// page of every file; each time a new process opens it and reads everything. At
// most most of these are done, evenly spread; 0 is all.
func Harm(ctx context.Context, dir string, most int) (Finding, error) {
	f := Finding{Test: "cut and flip"}
	if err := smallStore(dir); err != nil {
		return f, err
	}
	image := filepath.Join(dir, "image")
	type harm struct {
		name string
		at   int64
		flip bool
	}
	var all []harm
	err := fs.WalkDir(os.DirFS(image), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "LOCK" || d.Name() == "ballast" {
			return err
		}
		text, err := os.ReadFile(filepath.Join(image, name))
		if err != nil {
			return err
		}
		used := len(text) // logs are mapped longer than they are
		for used > 0 && text[used-1] == 0 {
			used--
		}
		for at := 0; at < max(used, 1); at += harmPage {
			all = append(all, harm{name, int64(at), false})
			if used > 0 {
				all = append(all, harm{name, int64(at + rand.IntN(min(harmPage, used-at))), true})
			}
		}
		return nil
	})
	if err != nil {
		return f, err
	}
	// What is not harmed is right, or nothing below means anything.
	var whole seen
	if err := ask(ctx, "store-read", image, &whole); err != nil {
		return f, err
	}
	if whole.Samples != 330*torturePaths || whole.Wrong+whole.Problems > 0 || whole.Open != "" {
		return f, fmt.Errorf("the store that was not harmed: %+v", whole)
	}
	if err := os.RemoveAll(image); err != nil { // reading wrote to it
		return f, err
	}
	if err := smallStore(dir); err != nil {
		return f, err
	}
	step := 1.0
	if most > 0 && len(all) > most {
		step = float64(len(all)) / float64(most)
	}
	for x := 0.0; int(x) < len(all) && ctx.Err() == nil; x += step {
		h := all[int(x)]
		bit := rand.IntN(8)
		hurt := filepath.Join(dir, "hurt")
		if err := os.RemoveAll(hurt); err != nil {
			return f, err
		}
		if err := os.CopyFS(hurt, os.DirFS(image)); err != nil {
			return f, err
		}
		name := filepath.Join(hurt, h.name)
		what := fmt.Sprintf("%s cut at %d", h.name, h.at)
		if h.flip {
			what = fmt.Sprintf("%s byte %d bit %d", h.name, h.at, bit)
			err = flip(name, h.at, bit)
		} else {
			err = os.Truncate(name, h.at)
		}
		if err != nil {
			return f, err
		}
		f.Runs++
		var s seen
		if err := ask(ctx, "store-read", hurt, &s); err != nil {
			f.Died++
			f.note("%s: %v", what, err)
			continue
		}
		missing := 330*torturePaths - s.Samples
		f.Wrong += s.Wrong
		switch {
		case s.Wrong > 0:
			f.note("%s: %s", what, s.Note)
		case s.Open != "" || s.Problems > 0:
			f.Refused++
		case missing > 0:
			f.Silent++
			f.note("%s: %d samples are missing", what, missing)
		default:
			f.Right++
		}
	}
	return f, ctx.Err()
}

func flip(name string, at int64, bit int) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close() // an error of writing is returned
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b[:], at)
	return err
}
