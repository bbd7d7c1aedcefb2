package appliance

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// confineVariable makes the test binary a child that confines itself.
const confineVariable = "PATRONUS_TEST_CONFINE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(confineVariable); dir != "" {
		os.Exit(confinedChild(dir))
	}
	goleak.VerifyTestMain(m)
}
