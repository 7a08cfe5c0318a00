[inputs: ["{mix,.formatter}.exs", "{apps,builds,config,lib,test}/**/*.{ex,exs}"]]
