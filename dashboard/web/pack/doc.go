// Command pack makes dist/ of package web: it copies our own files as they are,
// takes single files out of npm packages, compiles the style sheet by
// Tailwind's own program, gathers the icons that are used, and compresses.
//
// It bundles and transpiles nothing: what a browser runs is what is in src/.
// It fetches nothing either: `npm ci` has done that, from the lock file.
//
//	src/ + handbook/ + node_modules/ -> files in memory -> hash of all -> dist/files, manifest.json
package main
