[inputs: ["{mix,.formatter}.exs", "{builds,config,lib,test}/**/*.{ex,exs}"]]
