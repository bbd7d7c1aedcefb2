module patronus/e2e/rivals/tsdb

go 1.26.7

require patronus v0.0.0

require github.com/prometheus/prometheus v0.316.0 // indirect

replace patronus => ../../..
