// Package pid1 owns a machine that was started from our image: it is the first
// process, and the only one besides those that it starts.
//
// It mounts, loads the kernel modules that the devices ask for, sets the clock,
// brings the interfaces up, keeps a watchdog fed, runs `patronus run` and shows
// a status page on the consoles. It forwards no packets and knows no policy.
// (The name: Go has no package init.)
//
//	kernel -> Run: mounts, modules, watchdog, partitions, clock   (boot.go, one after the other)
//	             |  a failure is shown, and what can go on does
//	             v
//	          tasks (one errgroup): gateway | interfaces | judge | clock | watchdog | consoles | buttons | devices
//	             |  reboot, power off: by console, button, signal or judge
//	             v
//	          stop: gateway first, then tasks; save the clock; unmount; reboot(2)
//
// What is shared between tasks is in the board, under its mutex.
package pid1
