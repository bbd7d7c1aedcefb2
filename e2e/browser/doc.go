// Package browser drives the dashboard's pages in Debian's chromium; its tests
// are JavaScript (node --test, playwright-core), run by the script beside this
// file. This package holds no code: fleet is the server that they test.
//
//	rig.mjs starts fleet and chromium -> pages.test.mjs every page in every state, axe, policy violations
//	                                    story.test.mjs what people do, clicked through
//	                                    speed.test.mjs bytes, CPU, memory beside their bars
//	                                    unit.test.mjs  pure modules, without a browser
//
// SOAK is how long memory is watched, in seconds.
package browser
