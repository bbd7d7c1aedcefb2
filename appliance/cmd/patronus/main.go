// Command patronus is the SD-WAN appliance.
package main

func main() {}
