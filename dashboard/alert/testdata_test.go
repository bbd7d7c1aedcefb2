package alert

// seedRules are the examples of the product's first document, as they stand.
const seedRules = `# High Latency Alert
- name: "High Latency - HQ to East"
  condition:
    type: PathLatency
    path_id: path-hq-east
    threshold_ms: 50
    duration: 5m
  severity: Warning
  notification:
    email: ["ops@example.com"]
    slack:
      channel: "#sd-wan-alerts"

# Path Down Alert
- name: "Path Down"
  condition:
    type: PathDown
  severity: Critical
  notification:
    pagerduty:
      service_key: "abc123"
`
